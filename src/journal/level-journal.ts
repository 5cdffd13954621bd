import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import type { Message } from '../mqtt/message.js'
import { DamagedRecord, isDamage, moveAside } from '../storage/open-level.js'
import { everyTopic, type TopicPredicate, topicPredicate } from '../topics/match.js'
import type { Event } from './event.js'
import { GroupCommit } from './group-commit.js'
import {
  type Journal,
  type JournalBatch,
  type JournalBounds,
  type JournalQuery,
  JournalRefusal,
  type Loss,
  queryPredicate,
  type SequenceRange,
  type Urgency,
} from './journal.js'
import {
  closeDatabase,
  type Database,
  load,
  type OpenedDatabase,
  type OpenOptions,
  openJournalDatabase,
} from './level-database.js'
import { findLatest, readEvents, readRetainedMessages } from './level-reader.js'
import { JournalStore } from './level-state.js'
import type { IsGone } from './retained-messages.js'

/** How often old events are looked for; in milliseconds. */
const trimInterval = 10_000
/** How long to wait before a database that does not take writes is opened again, at first and at most; in milliseconds. */
const [firstDelay, longestDelay] = [1000, 30_000]
/** How often the log says that something cannot be read, at most; in milliseconds. */
const damageInterval = 60_000
/** Bounds of a portion of retained messages. */
const retainedPortion = { messages: 64, bytes: 1024 ** 2 }

/** What a journal on disk needs. */
export interface LevelJournalOptions {
  /** Its own directory, made if it is not there. */
  readonly directory: string
  readonly bounds: JournalBounds
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
  readonly slices?: SliceMonitor | undefined
}

/**
 * Opens, or makes, a journal that outlives the process.
 *
 * What is written is in the kernel's hands when it is reported as written, and so survives the end of the process in
 * whatever way. What the loss of power takes is noticed by the next start, which begins a new epoch.
 *
 * @throws {StartError} where another process has it open, or it cannot be made
 */
export async function openLevelJournal(options: LevelJournalOptions): Promise<Journal> {
  const complete = { clock: Date.now, ...options }
  return new LevelJournal(complete, await openJournalDatabase(complete))
}

class LevelJournal implements Journal {
  readonly epoch: string
  readonly #options: OpenOptions
  readonly #commit: GroupCommit
  readonly #timer: NodeJS.Timeout
  #database: Database
  #ledger: JournalStore
  /** Ends when all writes that were begun are done. */
  #writing: Promise<unknown> = Promise.resolve()
  #trimming: Promise<void> | undefined
  #state: 'open' | 'failed' | 'closed' = 'open'
  #recovering: Promise<void> | undefined
  /** Ends the wait before a failed database is opened again. */
  #hurry: (() => void) | undefined
  #closing: Promise<void> | undefined
  #warned = Number.NEGATIVE_INFINITY

  constructor(options: OpenOptions & Pick<LevelJournalOptions, 'slices'>, opened: OpenedDatabase) {
    this.#options = options
    this.epoch = opened.state.epoch
    this.#database = opened.database
    this.#ledger = this.#newLedger(opened)
    const { bounds, slices } = options
    this.#commit = new GroupCommit({ bounds, slices, write: messages => this.#write(messages) })
    this.#timer = setInterval(() => this.#trimSoon(), trimInterval).unref()
    this.#trimSoon()
  }

  get head(): number {
    return this.#ledger.head
  }

  get first(): number {
    return this.#ledger.first
  }

  get size(): number {
    return this.#ledger.size
  }

  lost(filters: readonly string[] | undefined, after: number, told?: readonly number[]): Loss | undefined {
    return this.#ledger.lost(filters, after, told)
  }

  append(message: Message, urgency?: Urgency): Promise<Event> {
    return this.#commit.append(message, urgency)
  }

  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void {
    return this.#commit.watch(listener, wants)
  }

  async read(query: JournalQuery): Promise<JournalBatch> {
    const { filters, after, told, limit, maxBytes } = query
    this.#checkOpen()
    const lost = this.#ledger.lost(filters, after, told)
    const isTold = lost === undefined || lost.complete > after
    const from = isTold ? after : lost.resume
    const view = this.#ledger.view(filters, from)
    const through = Math.min(query.through, view.head, isTold && lost ? lost.complete : view.head)
    const portion = isTold ? { after: from } : { after: from, lost }
    if (from >= through) return { ...portion, events: [], position: from }
    const range = { after: from, through }
    const { events, position, damage } = await readEvents(view, queryPredicate(query), range, { limit, maxBytes })
    if (!damage || position > from) return { ...portion, events, position }
    this.#reportDamage(damage.error)
    // As if it had been evicted: the subscriber is told of a gap, and goes on behind it.
    const { resume } = damage
    const all = { resume, through: resume, complete: after, told: told ?? lost?.told ?? [] }
    return { events: [], after: resume, position: resume, lost: all }
  }

  async latest(filters: readonly string[], count: number): Promise<number> {
    this.#checkOpen()
    const place = await findLatest(this.#ledger.view(filters, 0), topicPredicate(filters), count)
    return place ?? this.#ledger.lost(filters, 0)?.resume ?? 0
  }

  async *retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void> {
    const { after, through } = range
    const isGone: IsGone = (topic, sequence) => (this.#ledger.lost([topic], after)?.through ?? 0) >= sequence
    const isWanted = (topic: string, sequence: number) => sequence <= through || isGone(topic, sequence)
    for (const topics of this.#ledger.retained.match(filters, range, retainedPortion, isGone)) {
      this.#checkOpen()
      const view = this.#ledger.view([], this.head)
      yield await readRetainedMessages(view, topics, isWanted, error => this.#reportDamage(error))
    }
  }

  /** @throws {JournalRefusal} */
  #checkOpen(): void {
    if (this.#state !== 'open') throw new JournalRefusal(this.#state === 'failed' ? 'unavailable' : 'closed')
  }

  #write(messages: readonly Message[]): Promise<readonly Event[]> {
    return this.#inTurn(async () => {
      await this.#ledger.prepare()
      const time = this.#options.clock()
      const events = messages.map(message => this.#ledger.put(message, time))
      const evicted = this.#ledger.evict()
      const operations = this.#ledger.take()
      for (const [key, payload] of this.#ledger.takeAhead()) await this.#database.put(key, payload)
      await this.#database.batch(operations)
      this.#ledger.written()
      // There may be more, in the next segment.
      if (evicted) this.#trimSoon()
      return events
    })
  }

  async trim(): Promise<void> {
    // What is to be written has its turn between two steps.
    while (await this.#inTurn(() => this.#trimStep()));
  }

  async #trimStep(): Promise<boolean> {
    await this.#ledger.prepare()
    if (!this.#ledger.evict()) return false
    await this.#database.batch(this.#ledger.take())
    return true
  }

  /** Trims in the background. */
  #trimSoon(): void {
    this.#trimming ??= this.trim()
      // Told by what has failed.
      .catch(() => {})
      .finally(() => {
        this.#trimming = undefined
      })
  }

  /** Runs `write` after those before it; where it fails, the database has failed. */
  #inTurn<T>(write: () => Promise<T>): Promise<T> {
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
   * A write has failed, for want of space or worse. LevelDB's log has part of a record at its end then, and what it
   * writes after that may not be read again: so the database is closed, and opened again, which begins a new log.
   */
  #fail(error: unknown): void {
    if (this.#state !== 'open') return
    this.#state = 'failed'
    this.#options.log.error({ err: error }, 'the journal cannot be written; what is published is refused until it can')
    this.#recovering = this.#recover()
  }

  async #recover(): Promise<void> {
    const { directory, log } = this.#options
    for (let delay = firstDelay; this.#state === 'failed'; delay = Math.min(delay * 2, longestDelay)) {
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
        log.warn({ err: error }, `the journal cannot be opened; the next attempt is in ${delay / 1000} s`)
      }
      await this.#wait(delay)
    }
  }

  async #adopt(opened: OpenedDatabase): Promise<void> {
    const { head: before } = this.#ledger
    const { database, state } = opened
    this.#database = database
    if (state.head < before || state.epoch !== this.epoch) throw new DamagedRecord('events are missing')
    this.#ledger = this.#newLedger(opened)
    // A write that was reported as failed may have reached the disk all the same.
    const range = { after: before, through: state.head }
    const limits = { limit: Number.POSITIVE_INFINITY, maxBytes: Number.POSITIVE_INFINITY }
    if (range.after < range.through) {
      const { events } = await readEvents(this.#ledger.view(undefined, before), everyTopic, range, limits)
      this.#commit.announce(events)
    }
    if (this.#state === 'failed') this.#state = 'open'
  }

  #newLedger(opened: OpenedDatabase): JournalStore {
    const { clock } = this.#options
    return new JournalStore(opened, { clock, onDamage: error => this.#reportDamage(error) })
  }

  #wait(delay: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, delay)
      this.#hurry = () => {
        clearTimeout(timer)
        resolve()
      }
      if (this.#state === 'closed') this.#hurry()
    })
  }

  #reportDamage(error: unknown): void {
    const now = Date.now()
    if (now - this.#warned < damageInterval) return
    this.#warned = now
    const { log, directory } = this.#options
    log.error({ err: error }, `something in the journal in ${directory} cannot be read; subscribers are told of a gap`)
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
    this.#hurry?.()
    await this.#recovering
    await this.#writing
    await (failed ? this.#database.close() : closeDatabase(this.#database))
  }
}
