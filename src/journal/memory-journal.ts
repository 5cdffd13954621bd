import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import type { Message } from '../mqtt/message.js'
import { matchCost, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { type Event, formatId, isExpired, newEpoch } from './event.js'
import { EventLog, MergedLogs } from './event-log.js'
import { GroupCommit } from './group-commit.js'
import {
  type Journal,
  type JournalBatch,
  type JournalBounds,
  type JournalQuery,
  type Loss,
  queryPredicate,
  readableRange,
  readBytes,
  type SequenceRange,
  type Urgency,
} from './journal.js'
import { PayloadCopier, unsharedEvent, withExtras } from './payload-copies.js'
import { type IsEvicted, RetainedMessages } from './retained-messages.js'
import { Shares } from './shares.js'

/** Comparisons of an event with a filter in one step, at most some 3 ms; and evictions in one step. */
const maxComparisons = 8192
/** Bounds of a batch of retained messages, which are in memory. */
const retainedBatch = { messages: 256, bytes: Number.POSITIVE_INFINITY }
/** Interval of evicting old events, in milliseconds. */
const trimInterval = 10_000

export interface MemoryJournalOptions {
  readonly bounds: JournalBounds
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
  readonly slices?: SliceMonitor | undefined
}

/** A journal that ends with the process. */
export class MemoryJournal implements Journal {
  readonly epoch: string
  readonly #clock: () => number
  readonly #commit: GroupCommit
  readonly #retained: RetainedMessages
  readonly #payloads = new PayloadCopier()
  readonly #retainedEvents = new Map<string, Event>()
  readonly #timer: NodeJS.Timeout
  readonly #shares: Shares
  /** By share. */
  readonly #logs: readonly EventLog[]
  #head = 0
  /** Eviction that takes several event-loop ticks. */
  #trimming: Promise<void> | undefined

  constructor({ bounds, log, clock = Date.now, slices }: MemoryJournalOptions) {
    this.#shares = new Shares(bounds)
    this.#logs = Array.from({ length: this.#shares.count }, (_, share) => new EventLog(this.#shares.boundsOf(share)))
    this.#clock = clock
    this.epoch = newEpoch(clock())
    this.#retained = new RetainedMessages(bounds, log)
    this.#commit = new GroupCommit({ bounds, slices, write: messages => this.#writeAll(messages) })
    this.#timer = setInterval(() => this.trim(), trimInterval).unref()
  }

  get head(): number {
    return this.#head
  }

  get first(): number {
    return Math.min(this.#head + 1, ...this.#logs.map(({ oldest }) => oldest))
  }

  get size(): number {
    return this.#logs.reduce((sum, { size }) => sum + size, 0)
  }

  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined {
    return this.#shares.lost(this.#logs, filters, after, knownLosses)
  }

  append(message: Message, urgency?: Urgency): Promise<Event> {
    return this.#commit.append(message, urgency)
  }

  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void {
    return this.#commit.watch(listener, wants)
  }

  #write(message: Message): Event {
    const sequence = ++this.#head
    const { topic, qos } = message
    const payload = this.#payloads.of(message.payload)
    const id = formatId(this.epoch, sequence)
    const parts = { id, sequence, topic, time: this.#clock(), payload, qos, retained: false }
    const event: Event = withExtras(parts, message, this.#payloads)
    const change = this.#retained.note(message, sequence)
    if (change === 'keep') this.#retainedEvents.set(topic, { ...unsharedEvent(event), retained: true })
    if (change === 'remove') this.#retainedEvents.delete(topic)
    this.#logs[this.#shares.shareOf(topic)]?.push(event)
    return event
  }

  async #writeAll(messages: readonly Message[]): Promise<readonly Event[]> {
    const events = messages.map(message => this.#write(message))
    // Evicts more than a batch has, so that the journal stays within its bounds.
    this.#trimStep()
    if (this.#isOver()) this.#trimming ??= this.trim()
    return events
  }

  async read(query: JournalQuery): Promise<JournalBatch> {
    const { filters, after, knownLosses, limit, maxBytes } = query
    const wanted = queryPredicate(query)
    const lost = this.lost(filters, after, knownLosses)
    const { through, ...start } = readableRange(query, this.#head, lost)
    const from = start.after
    const events: Event[] = []
    let [bytes, position, left] = [0, from, eventsPerStep(filters ?? [])]
    const now = query.includesExpired ? Number.NEGATIVE_INFINITY : this.#clock()
    const merged = new MergedLogs(this.#logsOf(filters, from), from)
    for (let event = merged.next(); event && event.sequence <= through; event = merged.next()) {
      position = event.sequence
      if (wanted(event.topic) && !isExpired(event, now)) {
        events.push(event)
        bytes += readBytes(event)
      }
      if (events.length >= limit || bytes >= maxBytes || --left === 0) return { ...start, events, position }
    }
    return { ...start, events, position: through }
  }

  #logsOf(filters: readonly string[] | undefined, after: number): EventLog[] {
    const logs: EventLog[] = []
    for (const share of this.#shares.relevant(filters, after)) {
      const log = this.#logs[share]
      if (log && log.size > 0) logs.push(log)
    }
    return logs
  }

  async latest(filters: readonly string[], count: number): Promise<number> {
    const wanted = topicPredicate(filters)
    const step = eventsPerStep(filters)
    let [left, position] = [count, this.#head]
    for (;;) {
      // Events may be evicted between two steps.
      const merged = new MergedLogs(this.#logsOf(filters, 0), position, 'newest first')
      let event = merged.next()
      for (let scanned = 0; event && scanned < step; scanned++) {
        if (wanted(event.topic) && --left < 0) return event.sequence
        position = event.sequence - 1
        event = merged.next()
      }
      if (!event) return this.lost(filters, 0)?.resume ?? 0
      await new Promise(setImmediate)
    }
  }

  async *retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void> {
    const isEvicted: IsEvicted = (topic, sequence) => (this.lost([topic], range.after)?.through ?? 0) >= sequence
    for (const topics of this.#retained.match(filters, range, retainedBatch, isEvicted)) {
      const events: Event[] = []
      for (const topic of topics) {
        const event = this.#retainedEvents.get(topic)
        if (event && !isExpired(event, this.#clock())) events.push(event)
      }
      yield events
    }
  }

  async trim(): Promise<void> {
    for (;;) {
      this.#trimStep()
      const expired = this.#retained.removeExpired(this.#clock(), maxComparisons)
      for (const topic of expired) this.#retainedEvents.delete(topic)
      if (expired.length === 0 && !this.#isOver()) break
      await new Promise(setImmediate)
    }
    this.#trimming = undefined
  }

  #trimStep(): void {
    for (const log of this.#logs) log.evict(maxComparisons, this.#clock())
  }

  #isOver(): boolean {
    return this.#logs.some(log => log.isOver(this.#clock()))
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#commit.close()
  }
}

/** Events that are compared with these filters in one step. */
function eventsPerStep(filters: readonly string[]): number {
  return Math.ceil(maxComparisons / matchCost(filters))
}
