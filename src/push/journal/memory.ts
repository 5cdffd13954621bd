import type { Logger } from '../../log.js'
import { type Event, formatId, type Message, newEpoch } from '../event.js'
import {
  type Journal,
  type JournalBounds,
  type JournalQuery,
  type Portion,
  queryPredicate,
  type SequenceRange,
  sizeOf,
  type Urgency,
} from '../journal.js'
import { matchCost, type TopicPredicate, topicPredicate } from '../topics.js'
import { GroupCommit } from './group-commit.js'
import { lonePayload, OwnPayloads } from './own-payload.js'
import { RetainedMessages } from './retained-messages.js'

/** How often an event is held against one filter in one go, some 3 ms at the worst; and how many are let go of. */
const stride = 8192
/** Bounds of a portion of retained messages, which are in memory. */
const retainedPortion = { messages: 256, bytes: Number.POSITIVE_INFINITY }
/** How often old events are looked for; in milliseconds. */
const trimInterval = 10_000

/** What a journal in memory needs. */
export interface MemoryJournalOptions {
  readonly bounds: JournalBounds
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
}

/** A journal that ends with the process. */
export class MemoryJournal implements Journal {
  readonly epoch: string
  readonly #bounds: JournalBounds
  readonly #clock: () => number
  readonly #commit: GroupCommit
  readonly #retained: RetainedMessages
  readonly #payloads = new OwnPayloads()
  readonly #retainedEvents = new Map<string, Event>()
  readonly #timer: NodeJS.Timeout
  /** The events, and before them the places of some that are gone. */
  #events: (Event | undefined)[] = []
  /** The sequence of the first place. */
  #base = 1
  #first = 1
  #bytes = 0
  /** What goes on while there is more over the bounds than goes in one turn of the event loop. */
  #trimming: Promise<void> | undefined

  constructor({ bounds, log, clock = Date.now }: MemoryJournalOptions) {
    this.#bounds = bounds
    this.#clock = clock
    this.epoch = newEpoch(clock())
    this.#retained = new RetainedMessages(bounds, log)
    this.#commit = new GroupCommit({ bounds, write: messages => this.#writeAll(messages) })
    this.#timer = setInterval(() => this.trim(), trimInterval).unref()
  }

  get head(): number {
    return this.#base + this.#events.length - 1
  }

  get first(): number {
    return this.#first
  }

  append(message: Message, urgency?: Urgency): Promise<Event> {
    return this.#commit.append(message, urgency)
  }

  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void {
    return this.#commit.watch(listener, wants)
  }

  #write(message: Message): Event {
    const sequence = this.head + 1
    const { topic, qos } = message
    const payload = this.#payloads.of(message.payload)
    const id = formatId(this.epoch, sequence)
    const event: Event = { id, sequence, topic, time: this.#clock(), payload, qos, retained: false }
    const change = this.#retained.note(message, sequence)
    if (change === 'keep') {
      this.#retainedEvents.set(topic, { ...event, payload: lonePayload(payload), retained: true })
    }
    if (change === 'remove') this.#retainedEvents.delete(topic)
    this.#events.push(event)
    this.#bytes += sizeOf(message)
    return event
  }

  async #writeAll(messages: readonly Message[]): Promise<readonly Event[]> {
    const events = messages.map(message => this.#write(message))
    // More than a batch has, so that the journal does not grow however much comes.
    this.#trimStep()
    if (this.#isOver()) this.#trimming ??= this.trim()
    return events
  }

  async read(query: JournalQuery): Promise<Portion> {
    const { filters = [], after, through, limit, maxBytes } = query
    const wanted = queryPredicate(query)
    const from = Math.max(after, this.#first - 1)
    const end = Math.min(through, this.head, from + strideOf(filters))
    const events: Event[] = []
    let bytes = 0
    for (let sequence = from + 1; sequence <= end; sequence++) {
      const event = this.#events[sequence - this.#base]
      if (!event || !wanted(event.topic)) continue
      events.push(event)
      bytes += event.payload.length
      if (events.length >= limit || bytes >= maxBytes) return { events, after: from, position: sequence }
    }
    return { events, after: from, position: Math.max(from, end) }
  }

  async latest(filters: readonly string[], count: number): Promise<number> {
    const wanted = topicPredicate(filters)
    const turn = strideOf(filters)
    let left = count
    for (let sequence = this.head; sequence >= this.#first; sequence--) {
      const event = this.#events[sequence - this.#base]
      if (event && wanted(event.topic) && --left < 0) return sequence
      if (sequence % turn === 0) await new Promise(setImmediate)
    }
    return this.#first - 1
  }

  async *retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void> {
    for (const topics of this.#retained.match(filters, range, retainedPortion)) {
      const events: Event[] = []
      for (const topic of topics) {
        const event = this.#retainedEvents.get(topic)
        if (event) events.push(event)
      }
      yield events
    }
  }

  async trim(): Promise<void> {
    while (this.#isOver()) {
      this.#trimStep()
      if (this.#isOver()) await new Promise(setImmediate)
    }
    this.#trimming = undefined
  }

  #trimStep(): void {
    for (let left = stride; left > 0 && this.#isOver(); left--) this.#dropFirst()
    this.#compact()
  }

  #isOver(): boolean {
    const oldest = this.#events[this.#first - this.#base]
    if (!oldest) return false
    const { maxEvents, maxBytes, maxAge } = this.#bounds
    const count = this.head - this.#first + 1
    return count > maxEvents || this.#bytes > maxBytes || oldest.time < this.#clock() - maxAge
  }

  #dropFirst(): void {
    const at = this.#first - this.#base
    const event = this.#events[at]
    if (!event) return
    this.#bytes -= sizeOf(event)
    this.#events[at] = undefined
    this.#first++
  }

  /** Gives the places of what is gone back, when they are half of all: so each is moved once, on average. */
  #compact(): void {
    const gone = this.#first - this.#base
    if (gone < 1024 || gone * 2 < this.#events.length) return
    this.#events = this.#events.slice(gone)
    this.#base = this.#first
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#commit.close()
  }
}

/** Events that are held against these filters in one go. */
function strideOf(filters: readonly string[]): number {
  return Math.ceil(stride / matchCost(filters))
}
