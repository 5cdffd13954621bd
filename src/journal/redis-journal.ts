import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Exclusive } from '../base/exclusive.js'
import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { StartError } from '../base/start-error.js'
import type { Message } from '../mqtt/message.js'
import { holdLease, releaseLease } from '../storage/lease.js'
import {
  checkRedis,
  connectRedis,
  isTimeout,
  type Redis,
  type RedisConfig,
  reasonOf,
  redisOptions,
} from '../storage/redis.js'
import { nameOf } from '../storage/shared-redis.js'
import { deliveryDigest } from './delivery-digest.js'
import { type Event, gapMarker, newEpoch } from './event.js'
import { EventMemory } from './event-memory.js'
import { GroupCommit } from './group-commit.js'
import {
  type Journal,
  type JournalBatch,
  type JournalBounds,
  type JournalQuery,
  JournalRefusal,
  type Loss,
  type SequenceRange,
  type ShareRule,
  sizeOf,
  type Urgency,
} from './journal.js'
import { PayloadCopier } from './payload-copies.js'
import { anyLayout, decodeRecord, decodeRetained, encodeRecord, type RedisRecord } from './redis-records.js'
import {
  appendScript,
  fieldScript,
  joinScript,
  journalFormat,
  type KeyName,
  probeScript,
  rulesScript,
  trimScript,
} from './redis-scripts.js'
import { Shares, type ShareTopics } from './shares.js'

/** Interval of evicting old events, in milliseconds. */
const trimInterval = 10_000
/** How long a read of the stream waits for an event, and its time limit, in milliseconds. */
const [blockTime, followTimeout] = [1000, 4000]
/** Interval of reads of the stream while only this gateway may append, and of attempts without a connection, in milliseconds. */
const [termInterval, followInterval] = [100, 20]
/** Entries and bytes of one read of the stream. */
const [maxEntries, targetBytes] = [1000, 4 * 1024 ** 2]
/** Evicted events that are deleted by one script. */
const trimStep = 1000
/** Interval of attempts to join again, in milliseconds. */
const retryInterval = 200
/** Attempts of one append, each after another gateway has changed something. */
const maxAttempts = 10

export interface RedisJournalOptions {
  readonly config: RedisConfig
  readonly bounds: JournalBounds
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
  readonly slices?: SliceMonitor | undefined
}

/** A message that a broker delivered. */
type Delivered = Message & { readonly messageId?: number | undefined }

/** Appends while its holder may: nothing once the lease is another's. */
export interface Term {
  append(message: Message, urgency?: Urgency): Promise<Event>
  /** By packet identifier, digests of the messages that were appended and perhaps not acknowledged. */
  readonly deliveries: ReadonlyMap<number, string>
  /** Call when a packet identifier is acknowledged, and may be used again. */
  acknowledged(messageId: number): void
  /** Refuses further messages. */
  close(): void
}

/** What the gateways know in common about the broker's session. */
export interface SharedFields {
  get(name: string): Promise<string | undefined>
  set(name: string, value: string): Promise<void>
  /** Sets it unless it is set. @returns its value */
  setOnce(name: string, value: string): Promise<string>
}

/**
 * Opens the journal in Redis.
 *
 * @throws {StartError} if Redis cannot be reached, or cannot keep it, or its keys are someone else's
 */
export async function openRedisJournal(options: RedisJournalOptions): Promise<RedisJournal> {
  const { config, log } = options
  const name = nameOf(config)
  const connection = await redisOptions(config)
  const redis = await connectRedis(connection, name, log)
  let follower: Redis | undefined
  try {
    await checkRedis(redis, name, log)
    follower = await connectRedis(connection, name, log, followTimeout)
    const journal = new RedisJournal(options, redis, follower)
    await journal.start()
    return journal
  } catch (error) {
    redis.disconnect()
    follower?.disconnect()
    if (error instanceof StartError) throw error
    throw new StartError(`push.journal: Redis at ${name} cannot be used: ${reasonOf(error)}`, { cause: error })
  }
}

/** Rules of eviction, which all gateways adopt from the one that started last. */
interface Rules {
  readonly maxEvents: number
  readonly maxBytes: number
  readonly maxAge: number
  readonly rules: readonly ShareRule[]
}

interface State {
  readonly epoch: string
  readonly head: number
  readonly layout: number
  readonly rules: Rules
  readonly shares: readonly ShareTopics[]
  readonly evicted: readonly (readonly [share: number, sequence: number])[]
}

interface Entry {
  readonly sequence: number
  readonly record: Buffer
}

/** What is evicted in memory, and not yet deleted in Redis. */
interface Evictions {
  events: { readonly share: number; readonly sequence: number }[]
  /** Topics whose retained message is removed, with its sequence. */
  readonly topics: Map<string, number>
}

function noEvictions(): Evictions {
  return { events: [], topics: new Map() }
}

/**
 * A journal that several gateways share: Redis has the events, and each gateway has a copy of them in memory, from which it reads.
 *
 * An append names the head that its gateway knows, and Redis refuses it if that is not the newest event: so an append of which no answer
 * came can be found out, and never happens twice.
 */
export class RedisJournal implements Journal {
  readonly isShared = true
  readonly fields: SharedFields
  readonly #options: RedisJournalOptions
  readonly #redis: Redis
  readonly #follower: Redis
  readonly #clock: () => number
  readonly #commit: GroupCommit
  readonly #listeners = new Set<(events: readonly Event[]) => void>()
  readonly #payloads = new PayloadCopier()
  readonly #tasks = new Exclusive()
  #timer: NodeJS.Timeout | undefined
  #memory: EventMemory
  #epoch = ''
  #layout = 0
  /** The last record, by which it is recognized. */
  #last: Entry | undefined
  /** Who may append; empty while there is no lease. */
  #token = ''
  /** A batch of which no answer came. */
  #uncertain: { readonly batch: string; readonly messages: readonly Message[] } | undefined
  /** Events of messages that were refused after they were appended. */
  readonly #appended = new WeakMap<Message, Event>()
  /** Of `#memory`: the next one may have other bounds. */
  #evictions = noEvictions()
  readonly #acknowledged = new Set<number>()
  /** Whether both connections are up and this gateway has joined with them. */
  #joined = false
  #failure: string | undefined
  /** Number of lost connections. */
  #losses = 0
  #wake: () => void = ignore
  #isTrimming = false
  readonly #closing = new AbortController()
  #closed = false
  #loops: Promise<unknown> = Promise.resolve()

  constructor(options: RedisJournalOptions, redis: Redis, follower: Redis) {
    this.#options = options
    const { bounds, log, clock = Date.now, slices } = options
    this.#redis = redis
    this.#follower = follower
    this.#clock = clock
    this.#memory = new EventMemory({ bounds, log, clock })
    this.#commit = new GroupCommit({ bounds, slices, write: messages => this.#write(messages, '') })
    this.fields = {
      get: async name => (await this.#redis.hget(this.#key('journal'), name)) ?? undefined,
      set: async (name, value) => void (await this.#setField(name, value, 0)),
      setOnce: (name, value) => this.#setField(name, value, 1),
    }
    for (const connection of [redis, follower]) {
      connection.on('close', () => this.#lose('the connection to Redis was lost'))
      connection.on('ready', () => this.#wake())
    }
  }

  /** Joins, and reads what is there. */
  async start(): Promise<void> {
    await probeScript.run(this.#redis, [this.#key('probe')], []).catch(cause => {
      // The words differ between versions of Redis.
      if (!/can't run this command|ACL failure|^NOPERM/.test(reasonOf(cause))) throw cause
      throw new StartError(
        `push.journal: Redis lacks the permission for a command that the journal needs; allow its user +@read +@write +@scripting +@connection +info +time and the keys ${this.#options.config.prefix}* (${reasonOf(cause)})`,
        { cause },
      )
    })
    await this.#tasks.run(() => this.#join())
    this.#joined = true
    this.#timer = setInterval(() => void this.trim().catch(ignore), trimInterval).unref()
    this.#loops = Promise.all([this.#rejoin(), this.#follow()])
  }

  get epoch(): string {
    return this.#epoch
  }

  get head(): number {
    return this.#memory.head
  }

  get first(): number {
    return this.#memory.first
  }

  get size(): number {
    return this.#memory.size
  }

  /** Why nothing can be appended; `undefined` while it can. */
  get failure(): string | undefined {
    return this.#joined ? this.#failure : (this.#failure ?? 'connecting to Redis')
  }

  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined {
    return this.#memory.lost(filters, after, knownLosses)
  }

  append(message: Message, urgency?: Urgency): Promise<Event> {
    return this.#commit.append(message, urgency)
  }

  watch(listener: (events: readonly Event[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  read(query: JournalQuery): Promise<JournalBatch> {
    return this.#memory.read(query)
  }

  latest(filters: readonly string[], count: number): Promise<number> {
    return this.#memory.latest(filters, count)
  }

  retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void> {
    return this.#memory.retained(filters, range)
  }

  async trim(): Promise<void> {
    await this.#memory.trim()
    if (this.#joined) await this.#tasks.run(() => this.#deleteEvicted())
  }

  /** Takes the lease, or renews it, for `duration` milliseconds. @returns whether it is held */
  async hold(token: string, duration: number, how: 'take' | 'renew'): Promise<boolean> {
    if (!this.#joined) throw new JournalRefusal('unavailable', this.#failure)
    return holdLease(this.#redis, this.#key('lease'), token, duration, how)
  }

  /** Reads what other gateways have appended by now. */
  async catchUp(): Promise<void> {
    await this.#tasks.run(() => this.#catchUp())
  }

  async release(token: string): Promise<void> {
    await releaseLease(this.#redis, this.#key('lease'), token)
  }

  /** Begins to append with the lease that `token` holds. */
  async beginTerm(token: string): Promise<Term> {
    const { bounds, slices } = this.#options
    const found = await this.#redis.hgetall(this.#key('deliveries'))
    const deliveries = new Map(Object.entries(found).map(([id, digest]) => [Number(id), digest]))
    this.#token = token
    this.#acknowledged.clear()
    let isOver = false
    const write = (messages: readonly Message[]): Promise<readonly Event[]> =>
      isOver ? Promise.reject(new JournalRefusal('unavailable')) : this.#write(messages, token)
    const commit = new GroupCommit({ bounds, slices, write })
    return {
      deliveries,
      append: (message, urgency) => commit.append(message, urgency),
      acknowledged: messageId => {
        if (!isOver) this.#acknowledged.add(messageId)
      },
      close: () => {
        isOver = true
        if (this.#token === token) this.#token = ''
        // What Redis has refused concerns the gateway that reads the broker now.
        if (this.#joined) this.#failure = undefined
        void commit.close()
      },
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    clearInterval(this.#timer)
    await this.#commit.close()
    this.#closed = true
    this.#closing.abort()
    this.#wake()
    this.#follower.disconnect()
    await this.#loops
    await this.#tasks.run(async () => {})
    this.#redis.disconnect()
  }

  #key(name: KeyName): string {
    return this.#options.config.prefix + name
  }

  async #setField(name: string, value: string, isKept: 0 | 1): Promise<string> {
    const set = (): Promise<unknown> => fieldScript.run(this.#redis, [this.#key('journal')], [name, value, isKept])
    let result = await set()
    if (result === null) {
      // Redis has lost everything, and no append has noticed it yet.
      await this.#tasks.run(() => this.#join())
      result = await set()
    }
    return String(result ?? value)
  }

  #keys(): string[] {
    return (['journal', 'events', 'retained', 'lease', 'deliveries'] as const).map(name => this.#key(name))
  }

  // Connections

  #lose(reason: string): void {
    this.#losses++
    if (this.#closed) return
    if (this.#joined) this.#options.log.warn({ reason }, `the journal is not available: ${reason}`)
    this.#joined = false
    this.#failure ??= reason
    this.#wake()
  }

  /** Connects again, because a late answer could be taken for another one. */
  #reset(redis: Redis, error: unknown): void {
    this.#lose(`Redis: ${reasonOf(error)}`)
    redis.disconnect(true)
  }

  async #rejoin(): Promise<void> {
    while (!this.#closed) {
      const losses = this.#losses
      if (!this.#joined && this.#redis.status === 'ready' && this.#follower.status === 'ready') {
        try {
          await this.#tasks.run(() => this.#join())
          if (losses !== this.#losses) continue
          this.#joined = true
          this.#failure = undefined
          this.#options.log.info('the journal is available')
          this.#wake()
        } catch (error) {
          this.#failure = `Redis: ${reasonOf(error)}`
          if (isTimeout(error)) this.#redis.disconnect(true)
        }
      }
      await new Promise<void>(resolve => {
        const timer = this.#joined ? undefined : setTimeout(resolve, retryInterval)
        const before = this.#wake
        this.#wake = () => {
          clearTimeout(timer)
          before()
          resolve()
        }
      })
      this.#wake = ignore
    }
  }

  /**
   * Appends the events of other gateways to the memory. While only this gateway may append, it reads at intervals: a read that waits would return
   * each of its own events, which are in the memory already.
   */
  async #follow(): Promise<void> {
    let count = maxEntries
    while (!this.#closed) {
      if (!this.#joined) {
        await this.#pause(followInterval)
        continue
      }
      const isAlone = this.#token !== ''
      try {
        const position = `${this.#memory.head}-0`
        const block = isAlone ? [] : ['BLOCK', blockTime]
        const args = ['COUNT', count, ...block, 'STREAMS', this.#key('events'), position]
        const reply = (await this.#follower.callBuffer('XREAD', ...args)) as [Buffer, RawEntry[]][] | null
        const entries = (reply?.[0]?.[1] ?? []).map(readEntry)
        const isLast = entries.length < count
        count = nextCount(count, entries)
        if (entries.length > 0 && this.#joined) await this.#tasks.run(() => this.#take(entries))
        if (isAlone && isLast) await this.#pause(termInterval)
      } catch (error) {
        if (this.#closed) return
        if (this.#follower.status === 'ready') this.#reset(this.#follower, error)
        // Without a connection, a command fails at once, and the event loop would get no turn.
        await this.#pause(followInterval)
      }
    }
  }

  #pause(milliseconds: number): Promise<void> {
    return delay(milliseconds, undefined, { signal: this.#closing.signal }).catch(ignore)
  }

  // The copy in memory

  /** Joins the journal; afterwards, the memory is a copy of it. */
  async #join(): Promise<void> {
    const { log } = this.#options
    const head = this.#memory.head
    const diverged = await this.#hasOtherLast()
    const marker = encodeRecord(gapMarker, { layout: anyLayout, share: 1, time: this.#clock() })
    const keys = [this.#key('journal'), this.#key('events'), this.#key('retained')]
    const args = [newEpoch(Date.now()), journalFormat, this.#epoch, head, diverged === 'other' ? '1' : '0', marker]
    const [outcome, key] = texts(await joinScript.run(this.#redis, keys, args))
    if (outcome !== 'ok') {
      throw new StartError(
        `push.journal: the key ${this.#options.config.prefix}${key} in Redis is not of this version of mqway: choose another push.journal.redis.prefix`,
      )
    }
    const state = await this.#readState()
    const isNew = this.#epoch !== state.epoch || this.#layout !== state.layout || diverged !== 'same'
    if (this.#epoch !== '' && this.#epoch !== state.epoch) {
      log.warn('Redis has lost events: subscribers get a gap, and the cursors of before are of another epoch')
    }
    if (isNew || this.#epoch === '') await this.#load(diverged === 'unknown')
  }

  /** Compares the newest event with that in Redis; `unknown` if it is evicted there. */
  async #hasOtherLast(): Promise<'same' | 'other' | 'unknown'> {
    if (!this.#last) return 'same'
    const { sequence, record } = this.#last
    const [found] = await this.#range(sequence, sequence, 1)
    if (found) return found.record.equals(record) ? 'same' : 'other'
    const state = await this.#readState().catch(() => undefined)
    return state?.evicted.some(([, evicted]) => evicted >= sequence) ? 'unknown' : 'other'
  }

  async #range(from: number, to: number | '+', count: number): Promise<Entry[]> {
    const end = to === '+' ? to : `${to}-0`
    const reply = await this.#redis.callBuffer('XRANGE', this.#key('events'), `${from}-0`, end, 'COUNT', count)
    return (reply as RawEntry[]).map(readEntry)
  }

  /** The state in Redis, with this gateway's rules if it has just started. */
  async #readState(): Promise<State> {
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const found = await this.#redis.hgetall(this.#key('journal'))
      const { epoch = '', head = '0', layout = '1', rules, shares = '[]' } = found
      const { maxEvents, maxBytes, maxAge, rules: own = [] } = this.#options.bounds
      const wanted = JSON.stringify({ maxEvents, maxBytes, maxAge, rules: own })
      const stored = JSON.parse(shares) as ShareTopics[]
      // Others adopt them, and so does this gateway, once it runs.
      if (rules === undefined || (rules !== wanted && this.#epoch === '')) {
        const topics = new Shares(this.#options.bounds, stored, -1).topics
        await rulesScript.run(this.#redis, [this.#key('journal')], [layout, wanted, JSON.stringify(topics)])
        continue
      }
      const evicted = Object.entries(found).flatMap(([field, value]) =>
        field.startsWith('evicted:') ? [[Number(field.slice('evicted:'.length)), Number(value)] as const] : [],
      )
      return {
        ...{ epoch, head: Number(head), layout: Number(layout), shares: stored, evicted },
        rules: JSON.parse(rules) as Rules,
      }
    }
    throw new Error('other gateways keep changing the rules of the journal')
  }

  /**
   * Reads everything into a new memory, and announces what is newer than the old one.
   *
   * @param hasGap whether events may be missing after the old head
   */
  async #load(hasGap: boolean): Promise<void> {
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const isDone = await this.#loadOnce(hasGap)
      if (isDone) return
    }
    throw new Error('the journal keeps changing while it is read')
  }

  async #loadOnce(hasGap: boolean): Promise<boolean> {
    const { bounds, log } = this.#options
    const oldHead = this.#epoch === '' ? Number.POSITIVE_INFINITY : this.#memory.head
    const state = await this.#readState()
    const { epoch, layout } = state
    const evictions = noEvictions()
    const memory = new EventMemory({
      ...{ bounds: { ...bounds, ...state.rules }, log, clock: this.#clock },
      stored: { topics: state.shares, head: state.head },
      onEvicted: (sequence, share) => evictions.events.push({ sequence, share }),
      onForgotten: (topic, sequence) => evictions.topics.set(topic, sequence),
    })
    for (const [share, sequence] of state.evicted) memory.evictThrough(share, sequence)
    await this.#loadRetained(memory, epoch)
    const fresh: Event[] = []
    let last: Entry | undefined
    let count = maxEntries
    for (let isMore = true; isMore; ) {
      const entries = await this.#range((last?.sequence ?? 0) + 1, '+', count)
      for (const entry of entries) {
        const record = this.#decode(entry, epoch)
        if (record.layout !== anyLayout && record.layout > layout) return false
        if (record.epoch !== undefined && record.epoch !== epoch && entry.sequence > state.head) return false
        const { event } = record
        const isGap = hasGap || (memory.head <= oldHead && event.sequence !== oldHead + 1)
        if (event.sequence > oldHead && fresh.length === 0 && isGap && record.epoch === undefined) {
          fresh.push(this.#addGapMarker(memory, epoch, oldHead + 1, event.sequence))
        }
        // The retained state of before is loaded.
        const isNewer = event.sequence > Math.max(state.head, memory.retainedSequence(event.topic))
        last = entry
        // Unless the gap marker takes its place.
        if (event.sequence <= memory.head) continue
        memory.add(event, isNewer ? record.message : { ...record.message, retain: false }, record.share)
        if (event.sequence > oldHead) fresh.push(event)
      }
      isMore = entries.length > 0
      count = nextCount(count, entries)
    }
    const after = await this.#readState()
    if (after.epoch !== epoch || after.layout !== layout) return false
    // Events that were deleted meanwhile.
    for (const [share, sequence] of after.evicted) memory.evictThrough(share, sequence)
    if (state.head > memory.head && state.head > oldHead && fresh.length === 0) {
      fresh.push(this.#addGapMarker(memory, epoch, oldHead + 1, state.head + 1))
    }
    memory.skipTo(state.head)
    this.#memory = memory
    this.#evictions = evictions
    this.#epoch = epoch
    this.#layout = layout
    this.#last = last
    if (fresh.length > 0) this.#announce(fresh)
    return true
  }

  /** A gap marker in this gateway's copy alone, in place of events that others have seen, and that are evicted. */
  #addGapMarker(memory: EventMemory, epoch: string, sequence: number, before: number): Event {
    const at = Math.max(sequence, before - 1)
    const marker = encodeRecord(gapMarker, { layout: anyLayout, share: 1, time: this.#clock() })
    const { event, message } = this.#decode({ sequence: at, record: marker }, epoch)
    memory.add(event, message)
    return event
  }

  async #loadRetained(memory: EventMemory, epoch: string): Promise<void> {
    let cursor = '0'
    do {
      const reply = await this.#redis.callBuffer('HSCAN', this.#key('retained'), cursor, 'COUNT', 100)
      const [next, values] = reply as [Buffer, Buffer[]]
      for (let index = 1; index < values.length; index += 2) {
        const { event, message } = decodeRetained(values[index] ?? Buffer.alloc(0), epoch)
        if (event.sequence > memory.retainedSequence(event.topic)) memory.loadRetained(event, sizeOf(message))
      }
      cursor = next.toString()
    } while (cursor !== '0')
  }

  #decode({ sequence, record }: Entry, epoch = this.#epoch): RedisRecord {
    return decodeRecord(record, { epoch, sequence, copier: this.#payloads })
  }

  /** Adds entries of the stream. */
  async #take(entries: readonly Entry[]): Promise<void> {
    const events: Event[] = []
    try {
      for (const entry of entries) {
        const { head } = this.#memory
        if (entry.sequence <= head) continue
        const record = this.#decode(entry)
        const isKnown = record.layout === anyLayout || record.layout === this.#layout
        const isOther = record.epoch !== undefined && record.epoch !== this.#epoch
        if (entry.sequence !== head + 1 || !isKnown || isOther) {
          this.#announce(events.splice(0))
          await this.#load(false)
          continue
        }
        this.#memory.add(record.event, record.message, record.share)
        this.#last = entry
        events.push(record.event)
      }
    } finally {
      if (events.length > 0) this.#announce(events)
    }
    this.#memory.trimStep()
    this.#trimSoon()
  }

  /** Evicts what does not fit into one step. */
  #trimSoon(): void {
    if (this.#isTrimming || !this.#memory.isOver()) return
    this.#isTrimming = true
    void this.#memory.trim().finally(() => {
      this.#isTrimming = false
    })
  }

  #announce(events: readonly Event[]): void {
    if (events.length === 0) return
    for (const listener of this.#listeners) listener(events)
  }

  // Appending

  #write(messages: readonly Message[], token: string): Promise<readonly Event[]> {
    return this.#tasks.run(async () => {
      try {
        return await this.#appendAll(messages, token)
      } catch (error) {
        if (error instanceof JournalRefusal) throw error
        this.#failed(error)
        throw new JournalRefusal('unavailable', error)
      }
    })
  }

  #failed(error: unknown): void {
    const failure = `Redis: ${reasonOf(error)}`
    if (isTimeout(error)) this.#reset(this.#redis, error)
    else if (this.#joined && this.#failure !== failure)
      this.#options.log.warn({ err: error }, 'Redis refuses the journal')
    this.#failure = failure
  }

  async #appendAll(messages: readonly Message[], token: string): Promise<readonly Event[]> {
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      if (!this.#joined || this.#closed) throw new JournalRefusal('unavailable', this.#failure)
      const missing = messages.filter(message => !this.#appended.has(message))
      const outcome = missing.length === 0 ? 'ok' : await this.#appendOnce(missing, token)
      if (outcome === 'fenced') throw new JournalRefusal('unavailable', 'another gateway reads the broker')
      if (outcome === 'again') continue
      this.#failure = undefined
      const events = messages.flatMap(message => this.#appended.get(message) ?? [])
      for (const message of messages) this.#appended.delete(message)
      this.#memory.trimStep()
      this.#trimSoon()
      if (this.#evictions.events.length >= trimStep) await this.#deleteEvicted().catch(ignore)
      return events
    }
    throw new JournalRefusal('unavailable', 'other gateways append at the same time')
  }

  async #appendOnce(messages: readonly Message[], token: string): Promise<'ok' | 'again' | 'fenced'> {
    if (this.#uncertain) {
      // Its events, if it was appended, are between the head and the newest event.
      const { batch, messages: sent } = this.#uncertain
      const [last, base] = await this.#lastBatch()
      await this.#catchUp()
      if (last === batch) await this.#noteAppended(sent, Number(base))
      this.#uncertain = undefined
      if (last === batch) return 'again'
    }
    const { head } = this.#memory
    const batch = randomBytes(9).toString('base64')
    const acknowledged = [...this.#acknowledged]
    const time = this.#clock()
    const layout = this.#layout
    const records = messages.map(message =>
      encodeRecord(message, { layout, share: this.#memory.shares.shareOf(message.topic), time }),
    )
    const args: (string | Buffer | number)[] = [token, this.#epoch, layout, head, batch, acknowledged.length]
    args.push(...acknowledged)
    for (const [index, message] of messages.entries()) {
      const { topic, payload, retain } = message
      const { messageId } = message as Delivered
      const change = retain ? (payload.length > 0 ? 'k' : 'r') : ''
      const digest = messageId === undefined ? '' : deliveryDigest(message)
      args.push(records[index] ?? '', change, topic, messageId ?? '', digest)
    }
    this.#uncertain = { batch, messages }
    const [outcome] = texts(await this.#run(args))
    this.#uncertain = undefined
    if (outcome === 'fenced') return outcome
    if (outcome === 'stale') await this.#join()
    if (outcome === 'moved') await this.#catchUp()
    if (outcome !== 'ok') return 'again'
    for (const id of acknowledged) this.#acknowledged.delete(id)
    const entries = records.map((record, index) => ({ sequence: head + 1 + index, record }))
    const events = entries.map((entry, index) => {
      const { event, message, share } = this.#decode(entry)
      this.#memory.add(event, message, share)
      const original = messages[index]
      if (original) this.#appended.set(original, event)
      return event
    })
    this.#last = entries.at(-1)
    this.#announce(events)
    return 'ok'
  }

  async #run(args: (string | Buffer | number)[]): Promise<unknown> {
    try {
      return await appendScript.run(this.#redis, this.#keys(), args)
    } catch (error) {
      // An answer of Redis is certain.
      if (error instanceof Error && error.name === 'ReplyError') this.#uncertain = undefined
      throw error
    }
  }

  async #lastBatch(): Promise<readonly [batch: string, base: string]> {
    const [batch, base] = await this.#redis.hmget(this.#key('journal'), 'batch', 'base')
    return [batch ?? '', base ?? '']
  }

  async #catchUp(): Promise<void> {
    for (let count = maxEntries; ; ) {
      const entries = await this.#range(this.#memory.head + 1, '+', count)
      if (entries.length === 0) return
      count = nextCount(count, entries)
      await this.#take(entries)
    }
  }

  async #noteAppended(messages: readonly Message[], base: number): Promise<void> {
    const { events } = await this.#memory.read({
      ...{ after: base, through: base + messages.length, limit: messages.length, maxBytes: Number.POSITIVE_INFINITY },
      includesExpired: true,
    })
    const bySequence = new Map(events.map(event => [event.sequence, event]))
    for (const [index, message] of messages.entries()) {
      const event = bySequence.get(base + 1 + index)
      if (event) this.#appended.set(message, event)
    }
  }

  /** Deletes in Redis what is evicted here, if this gateway appends; otherwise forgets what another one has deleted. */
  async #deleteEvicted(): Promise<void> {
    const evictions = this.#evictions
    while (evictions.events.length > 0 || evictions.topics.size > 0) {
      const events = evictions.events.slice(0, trimStep)
      const topics = [...evictions.topics].slice(0, trimStep)
      const newest = new Map<number, number>()
      for (const { share, sequence } of events) newest.set(share, Math.max(newest.get(share) ?? 0, sequence))
      const args = [
        ...[this.#token, this.#epoch, this.#layout, newest.size, ...[...newest].flat()],
        ...[events.length, ...events.map(({ sequence }) => sequence), ...topics.flat()],
      ]
      const [outcome] = texts(await trimScript.run(this.#redis, this.#keys(), args))
      if (outcome !== 'ok') {
        // After its next start a gateway that appends finds them again.
        evictions.topics.clear()
        break
      }
      evictions.events.splice(0, events.length)
      for (const [topic, sequence] of topics) {
        if (evictions.topics.get(topic) === sequence) evictions.topics.delete(topic)
      }
    }
    if (evictions.events.length === 0) return
    const state = await this.#readState()
    const known = new Map(state.evicted)
    evictions.events = evictions.events.filter(({ share, sequence }) => sequence > (known.get(share) ?? 0))
  }
}

type RawEntry = [id: Buffer, fields: Buffer[]]

function readEntry([id, fields]: RawEntry): Entry {
  return { sequence: Number.parseInt(id.toString('latin1'), 10), record: fields[1] ?? Buffer.alloc(0) }
}

/** How many entries to read next, so that they have some megabytes. */
function nextCount(count: number, entries: readonly Entry[]): number {
  if (entries.length === 0) return count
  const bytes = entries.reduce((sum, { record }) => sum + record.length, 0)
  const fitting = Math.floor((targetBytes * entries.length) / Math.max(bytes, 1))
  return Math.max(1, Math.min(maxEntries, fitting, count * 4))
}

function texts(reply: unknown): string[] {
  return (reply as unknown[]).map(String)
}

function ignore(): void {}
