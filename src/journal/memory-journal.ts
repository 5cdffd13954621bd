import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import type { Message } from '../mqtt/message.js'
import type { TopicPredicate } from '../topics/match.js'
import { type Event, formatId, newEpoch } from './event.js'
import { EventMemory } from './event-memory.js'
import { GroupCommit } from './group-commit.js'
import type { Journal, JournalBatch, JournalBounds, JournalQuery, Loss, SequenceRange, Urgency } from './journal.js'
import { PayloadCopier, withExtras } from './payload-copies.js'

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
  readonly isShared: boolean = false
  readonly failure = undefined
  readonly epoch: string
  readonly #clock: () => number
  readonly #commit: GroupCommit
  readonly #payloads = new PayloadCopier()
  readonly #timer: NodeJS.Timeout
  readonly #memory: EventMemory
  /** Eviction that takes several event-loop ticks. */
  #trimming: Promise<void> | undefined

  constructor({ bounds, log, clock = Date.now, slices }: MemoryJournalOptions) {
    this.#clock = clock
    this.#memory = new EventMemory({ bounds, log, clock })
    this.epoch = newEpoch(clock())
    this.#commit = new GroupCommit({ bounds, slices, write: messages => this.#writeAll(messages) })
    this.#timer = setInterval(() => this.trim(), trimInterval).unref()
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

  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined {
    return this.#memory.lost(filters, after, knownLosses)
  }

  append(message: Message, urgency?: Urgency): Promise<Event> {
    return this.#commit.append(message, urgency)
  }

  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void {
    return this.#commit.watch(listener, wants)
  }

  #write(message: Message): Event {
    const sequence = this.#memory.head + 1
    const { topic, qos } = message
    const payload = this.#payloads.of(message.payload)
    const id = formatId(this.epoch, sequence)
    const parts = { id, sequence, topic, time: this.#clock(), payload, qos, retained: false }
    const event: Event = withExtras(parts, message, this.#payloads)
    this.#memory.add(event, message)
    return event
  }

  async #writeAll(messages: readonly Message[]): Promise<readonly Event[]> {
    const events = messages.map(message => this.#write(message))
    // Evicts more than a batch has, so that the journal stays within its bounds.
    this.#memory.trimStep()
    if (this.#memory.isOver()) this.#trimming ??= this.trim()
    return events
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
    this.#trimming = undefined
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#commit.close()
  }
}
