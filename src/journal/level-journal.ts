import type { Logger } from '../base/log.js'
import { LogRate } from '../base/log-rate.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import type { Message } from '../mqtt/message.js'
import { DamagedRecord, isDamage, moveAside } from '../storage/open-level.js'
import { everyTopic, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { type Event, isExpired } from './event.js'
import { GroupCommit } from './group-commit.js'
import {
  type Journal,
  type JournalBatch,
  type JournalBounds,
  type JournalQuery,
  JournalRefusal,
  type Loss,
  queryPredicate,
  readableRange,
  type SequenceRange,
  type Urgency,
} from './journal.js'
import { closeDatabase, load, type OpenedDatabase, type OpenOptions, openJournalDatabase } from './level-database.js'
import { findLatest, readEvents, readRetainedMessages } from './level-reader.js'
import type { Database } from './level-records.js'
import { JournalStore } from './level-state.js'
import type { IsEvicted } from './retained-messages.js'

/** Interval of evicting old events, in milliseconds. */
const trimInterval = 10_000
/** Delay before a failed database is opened again, at first and at most, in milliseconds. */
const [firstDelay, maxDelay] = [1000, 5000]
/** Bounds of a batch of retained messages. */
const retainedBatch = { messages: 64, bytes: 1024 ** 2 }

export interface LevelJournalOptions {
  /** Its own directory, created if it does not exist. */
  readonly directory: string
  readonly bounds: JournalBounds
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
  readonly slices?: SliceMonitor | undefined
}

/**
 * Opens or creates a durable journal.
 *
 * A finished write survives the end of the process. After a loss of power, the next start begins a new epoch.
 *
 * @throws {StartError} where another process has it open, or it cannot be created
 */
export async function openLevelJournal(options: LevelJournalOptions): Promise<Journal> {
  const complete = { clock: Date.now, ...options }
  return new LevelJournal(complete, await openJournalDatabase(complete))
}

class LevelJournal implements Journal {
  readonly isShared: boolean = false
  readonly epoch: string
  readonly #options: OpenOptions
  readonly #commit: GroupCommit
  readonly #timer: NodeJS.Timeout
  #database: Database
  #store: JournalStore
  #writing: Promise<unknown> = Promise.resolve()
  #trimming: Promise<void> | undefined
  #state: 'open' | 'failed' | 'closed' = 'open'
  #failure: string | undefined
  #recovering: Promise<void> | undefined
  /** Ends the delay before a failed database is opened again. */
  #endWait: (() => void) | undefined
  #closing: Promise<void> | undefined
  readonly #damageReports = new LogRate()

  constructor(options: OpenOptions & Pick<LevelJournalOptions, 'slices'>, opened: OpenedDatabase) {
    this.#options = options
    this.epoch = opened.state.epoch
    this.#database = opened.database
    this.#store = this.#createStore(opened)
    const { bounds, slices } = options
    this.#commit = new GroupCommit({ bounds, slices, write: messages => this.#write(messages) })
    this.#timer = setInterval(() => this.#trimSoon(), trimInterval).unref()
    this.#trimSoon()
  }

  get head(): number {
    return this.#store.head
  }

  get first(): number {
    return this.#store.first
  }

  get size(): number {
    return this.#store.size
  }

  get failure(): string | undefined {
    return this.#state === 'failed' ? this.#failure : undefined
  }

  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined {
    return this.#store.lost(filters, after, knownLosses)
  }

  append(message: Message, urgency?: Urgency): Promise<Event> {
    return this.#commit.append(message, urgency)
  }

  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void {
    return this.#commit.watch(listener, wants)
  }

  async read(query: JournalQuery): Promise<JournalBatch> {
    const { filters, after, knownLosses, limit, maxBytes } = query
    this.#checkOpen()
    const lost = this.#store.lost(filters, after, knownLosses)
    const { through, ...start } = readableRange(query, this.#store.head, lost)
    const from = start.after
    if (from === through) return { ...start, events: [], position: from }
    const view = this.#store.view(filters, from)
    const range = { after: from, through }
    const now = query.includesExpired ? undefined : this.#options.clock()
    const { events, position, damage } = await readEvents(view, queryPredicate(query), range, { limit, maxBytes, now })
    if (!damage || position > from) return { ...start, events, position }
    this.#reportDamage(damage.error)
    // As if it were evicted: the subscriber gets a gap and continues after it.
    const { resume } = damage
    const all = { resume, through: resume, complete: after, evicted: knownLosses ?? lost?.evicted ?? [] }
    return { events: [], after: resume, position: resume, lost: all }
  }

  async latest(filters: readonly string[], count: number): Promise<number> {
    this.#checkOpen()
    const position = await findLatest(this.#store.view(filters, 0), topicPredicate(filters), count)
    return position ?? this.#store.lost(filters, 0)?.resume ?? 0
  }

  async *retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void> {
    const { after, through } = range
    const isEvicted: IsEvicted = (topic, sequence) => (this.#store.lost([topic], after)?.through ?? 0) >= sequence
    const isWanted = (topic: string, sequence: number) => sequence <= through || isEvicted(topic, sequence)
    for (const topics of this.#store.retained.match(filters, range, retainedBatch, isEvicted)) {
      this.#checkOpen()
      const view = this.#store.view([], this.head)
      const events = await readRetainedMessages(view, topics, isWanted, error => this.#reportDamage(error))
      yield events.filter(event => !isExpired(event, this.#options.clock()))
    }
  }

  /** @throws {JournalRefusal} */
  #checkOpen(): void {
    if (this.#state !== 'open') throw new JournalRefusal(this.#state === 'failed' ? 'unavailable' : 'closed')
  }

  #write(messages: readonly Message[]): Promise<readonly Event[]> {
    return this.#inOrder(async () => {
      await this.#store.prepare()
      const time = this.#options.clock()
      const events = messages.map(message => this.#store.put(message, time))
      const evicted = this.#store.evict()
      const operations = this.#store.take()
      for (const [key, payload] of this.#store.takeHugePayloads()) await this.#database.put(key, payload)
      await this.#database.batch(operations)
      this.#store.written()
      // The next segment may have more.
      if (evicted) this.#trimSoon()
      return events
    })
  }

  async trim(): Promise<void> {
    // Writes may run between two steps.
    while (await this.#inOrder(() => this.#trimStep()));
  }

  async #trimStep(): Promise<boolean> {
    await this.#store.prepare()
    const evicted = this.#store.evict()
    const expired = this.#store.removeExpired(this.#options.clock())
    if (!evicted && !expired) return false
    await this.#database.batch(this.#store.take())
    return true
  }

  #trimSoon(): void {
    this.#trimming ??= this.trim()
      // Reported by `#fail`.
      .catch(() => {})
      .finally(() => {
        this.#trimming = undefined
      })
  }

  /** Runs `write` after the earlier ones; its failure is one of the database. */
  #inOrder<T>(write: () => Promise<T>): Promise<T> {
    const current = this.#writing.then(async () => {
      this.#checkOpen()
      try {
        return await write()
      } catch (error) {
        this.#fail(error)
        throw new JournalRefusal('unavailable', error)
      }
    })
    this.#writing = current.catch(() => {})
    return current
  }

  /**
   * A write has failed, such as on a full disk. LevelDB's log then ends with part of a record, and later records may be unreadable: the database
   * is closed and opened again, which begins a new log.
   */
  #fail(error: unknown): void {
    if (this.#state !== 'open') return
    this.#state = 'failed'
    this.#failure = error instanceof Error ? error.message : String(error)
    this.#options.log.error({ err: error }, 'failed to write the journal: refusing messages until it can be written')
    this.#recovering = this.#recover()
  }

  async #recover(): Promise<void> {
    const { directory, log } = this.#options
    for (let delay = firstDelay; this.#state === 'failed'; delay = Math.min(delay * 2, maxDelay)) {
      try {
        await this.#database.close()
        await this.#adopt(await load(this.#options))
        log.info('the journal can be written again')
        return
      } catch (error) {
        if (isDamage(error)) {
          await this.#database.close()
          const aside = await moveAside(this.#options)
          log.fatal({ err: error }, `the journal in ${directory} is damaged and was moved to ${aside}: restart mqway`)
          return
        }
        log.warn({ err: error }, `failed to open the journal: retrying in ${delay / 1000} s`)
      }
      await this.#wait(delay)
    }
  }

  async #adopt(opened: OpenedDatabase): Promise<void> {
    const { head: before } = this.#store
    const { database, state } = opened
    this.#database = database
    if (state.head < before || state.epoch !== this.epoch) throw new DamagedRecord('events are missing')
    this.#store = this.#createStore(opened)
    // A write that failed may have reached the disk.
    const range = { after: before, through: state.head }
    const limits = { limit: Number.POSITIVE_INFINITY, maxBytes: Number.POSITIVE_INFINITY }
    if (range.after < range.through) {
      const { events } = await readEvents(this.#store.view(undefined, before), everyTopic, range, limits)
      this.#commit.announce(events)
    }
    if (this.#state === 'failed') this.#state = 'open'
  }

  #createStore(opened: OpenedDatabase): JournalStore {
    const { clock } = this.#options
    return new JournalStore(opened, { clock, onDamage: error => this.#reportDamage(error) })
  }

  #wait(delay: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, delay)
      this.#endWait = () => {
        clearTimeout(timer)
        resolve()
      }
      if (this.#state === 'closed') this.#endWait()
    })
  }

  #reportDamage(error: unknown): void {
    if (!this.#damageReports.allows()) return
    const { log, directory } = this.#options
    log.error({ err: error }, `part of the journal in ${directory} cannot be read: subscribers get a gap`)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#commit.close()
    const failed = this.#state === 'failed'
    this.#state = 'closed'
    this.#endWait?.()
    await this.#recovering
    await this.#writing
    await (failed ? this.#database.close() : closeDatabase(this.#database))
  }
}
