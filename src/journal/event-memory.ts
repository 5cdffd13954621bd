import type { Logger } from '../base/log.js'
import type { Message } from '../mqtt/message.js'
import { matchCost, topicPredicate } from '../topics/match.js'
import { type Event, isExpired } from './event.js'
import { EventLog, MergedLogs } from './event-log.js'
import {
  type JournalBatch,
  type JournalBounds,
  type JournalQuery,
  type Loss,
  queryPredicate,
  readableRange,
  readBytes,
  type SequenceRange,
} from './journal.js'
import { unsharedEvent } from './payload-copies.js'
import { type IsEvicted, RetainedMessages } from './retained-messages.js'
import { Shares, type ShareTopics } from './shares.js'

/** Comparisons of an event with a filter in one step, at most some 3 ms; and evictions in one step. */
const maxComparisons = 8192
/** Bounds of a batch of retained messages, which are in memory. */
const retainedBatch = { messages: 256, bytes: Number.POSITIVE_INFINITY }

export interface EventMemoryOptions {
  readonly bounds: JournalBounds
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock: () => number
  /** The journal's shares, and its head when they were stored; left out for a new journal. */
  readonly stored?: { readonly topics: readonly ShareTopics[]; readonly head: number }
  /** Called for each evicted event. */
  readonly onEvicted?: (sequence: number, share: number) => void
  /** Called for each topic whose retained message is removed because it has expired, or a later one does not fit. */
  readonly onForgotten?: (topic: string, sequence: number) => void
}

/** The events and retained messages of a journal in memory, within its bounds. */
export class EventMemory {
  readonly shares: Shares
  readonly #options: EventMemoryOptions
  readonly #retained: RetainedMessages
  readonly #retainedEvents = new Map<string, Event>()
  /** By share. */
  readonly #logs: readonly EventLog[]
  #head = 0

  constructor(options: EventMemoryOptions) {
    const { bounds, log, stored, onEvicted } = options
    this.#options = options
    this.shares = new Shares(bounds, stored?.topics, stored?.head)
    this.#logs = Array.from(
      { length: this.shares.count },
      (_, share) => new EventLog(this.shares.boundsOf(share), onEvicted && (event => onEvicted(event.sequence, share))),
    )
    this.#retained = new RetainedMessages(bounds, log)
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

  /** By share: the sequence up to which its events are evicted. */
  get evicted(): readonly number[] {
    return this.#logs.map(({ evicted }) => evicted)
  }

  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined {
    return this.shares.lost(this.#logs, filters, after, knownLosses)
  }

  /**
   * Adds an event after all others.
   *
   * @param message what was published; without `retain` where the retained state is known already
   * @param share default: that of its topic
   */
  add(event: Event, message: Message, share = this.shares.shareOf(event.topic)): void {
    const { topic, sequence } = event
    this.#head = sequence
    const change = this.#retained.note(message, sequence)
    if (change === 'keep') this.#retainedEvents.set(topic, { ...unsharedEvent(event), retained: true })
    else if (change === 'remove') this.#retainedEvents.delete(topic)
    if (message.retain && message.payload.length > 0 && change !== 'keep') this.#options.onForgotten?.(topic, sequence)
    this.#logs[share]?.push(event)
  }

  /** Sets a topic's retained message, whatever the bounds. */
  loadRetained(event: Event, size: number): void {
    const { topic, sequence, expires } = event
    this.#retained.load(topic, { sequence, size, ...(expires !== undefined && { expires }) })
    this.#retainedEvents.set(topic, { ...event, retained: true })
  }

  /** The sequence of a topic's retained message; 0 without one. */
  retainedSequence(topic: string): number {
    return this.#retainedEvents.get(topic)?.sequence ?? 0
  }

  /** Moves the head over sequences that have no event. */
  skipTo(sequence: number): void {
    this.#head = Math.max(this.#head, sequence)
  }

  /** Evicts the events of a share up to `sequence`, or notes that they are missing. */
  evictThrough(share: number, sequence: number): void {
    this.#logs[share]?.evictThrough(sequence)
  }

  async read(query: JournalQuery): Promise<JournalBatch> {
    const { filters, after, knownLosses, limit, maxBytes } = query
    const wanted = queryPredicate(query)
    const lost = this.lost(filters, after, knownLosses)
    const { through, ...start } = readableRange(query, this.#head, lost)
    const from = start.after
    const events: Event[] = []
    let [bytes, position, left] = [0, from, eventsPerStep(filters ?? [])]
    const now = query.includesExpired ? Number.NEGATIVE_INFINITY : this.#options.clock()
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
    for (const share of this.shares.relevant(filters, after)) {
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
        if (event && !isExpired(event, this.#options.clock())) events.push(event)
      }
      yield events
    }
  }

  /** Evicts the events beyond the bounds, and removes expired retained messages, in steps. */
  async trim(): Promise<void> {
    for (;;) {
      this.trimStep()
      const expired = this.#retained.removeExpired(this.#options.clock(), maxComparisons)
      for (const topic of expired) {
        this.#options.onForgotten?.(topic, this.retainedSequence(topic))
        this.#retainedEvents.delete(topic)
      }
      if (expired.length === 0 && !this.isOver()) return
      await new Promise(setImmediate)
    }
  }

  /** Evicts more than a batch has. */
  trimStep(): void {
    for (const log of this.#logs) log.evict(maxComparisons, this.#options.clock())
  }

  /** Whether there are events beyond the bounds. */
  isOver(): boolean {
    return this.#logs.some(log => log.isOver(this.#options.clock()))
  }
}

/** Events that are compared with these filters in one step. */
function eventsPerStep(filters: readonly string[]): number {
  return Math.ceil(maxComparisons / matchCost(filters))
}
