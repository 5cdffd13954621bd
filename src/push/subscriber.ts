import type { Chain } from './chain.js'
import type { Event } from './event.js'
import { formatId } from './event.js'
import type { Place } from './journal.js'
import type { CloseReason, Encoder, Sink } from './sink.js'
import { type TopicPredicate, topicPredicate } from './topics.js'

/** What a subscriber asks for. */
export interface SubscribeOptions {
  /** Valid (`topicFilterProblem`) and shallow (`isShallow`) topic filters, at least one. */
  readonly filters: readonly string[]
  readonly encode: Encoder
  readonly sink: Sink
  /** Where it was the last time, in whatever text it has kept. Without it, it first gets what is retained. */
  readonly cursor?: string
  /** Without a cursor: how many of the newest events it first gets besides. */
  readonly last?: number
  /** After how many events it is done; what is retained does not count. */
  readonly limit?: number
}

/** Somebody who gets events. */
export interface Subscription {
  /** Where to go on with another subscription, when this one ends now: after what has been given to the sink. */
  readonly cursor: string | undefined
  /** Ends it. The sink is not told. */
  close(): void
}

/** Numbers of what the hub did since it began, and of those who are there. */
export interface HubCounters {
  subscribers: number
  /** Of them, those that have not yet got all that was there. */
  catchingUp: number
  /** Events given to a sink, for each sink; those replayed and retained included. */
  delivered: number
  replayed: number
  retained: number
  gaps: number
  /** Subscribers that were cut off because they read too slowly. */
  cutOff: number
  /** Events that waited for those; they are in the journal all the same. */
  dropped: number
}

/** Bounds of what waits for one subscriber whose sink has no room. */
export interface QueueBounds {
  readonly maxQueuedEvents: number
  readonly maxQueuedBytes: number
}

/** What a subscriber needs of the hub. */
export interface SubscriberHost {
  readonly epoch: string
  /** The newest event of which everybody who is live was told. */
  readonly position: number
  readonly counters: HubCounters
  readonly bounds: QueueBounds
  /** Its sink has room again, and it is not live. */
  resumed(subscriber: Subscriber): void
  /** There is something to be written at the end of this turn of the event loop. */
  waits(subscriber: Subscriber): void
  /** It is no more. */
  left(subscriber: Subscriber): void
}

/**
 * How far one subscriber is: it gets what is `retained`, then what it has missed (`replay`), and is `live` then.
 *
 * `position` is the place up to which it has been given everything that it wants, while it is not live.
 */
export class Subscriber implements Subscription {
  readonly filters: readonly string[]
  readonly encode: Encoder
  /** How many of the newest events it has yet to be placed before. */
  last: number | undefined
  state: 'retained' | 'replay' | 'live' | 'closed' = 'replay'
  position: number
  /** The retained messages that it gets, while it does: those written after `known`. */
  retained: AsyncGenerator<readonly Event[], void, void> | undefined
  known: number
  /** The newest event that was offered to it. */
  offered = 0
  readonly #host: SubscriberHost
  readonly #sink: Sink
  /** What it had when it came, while there is nothing better. */
  #cursor: string | undefined
  /** How many events it may yet get. */
  #left: number
  #pending: Chain | undefined
  /** The place before the first event that waits. */
  #before = 0
  #blocked = false
  /** Whether it gets what is retained, and has no place until it has got all of it. */
  #unplaced: boolean

  constructor(host: SubscriberHost, { filters, encode, sink, cursor, last, limit }: SubscribeOptions, place: Place) {
    this.#host = host
    this.#sink = sink
    this.filters = [...new Set(filters)]
    this.encode = encode
    this.#cursor = cursor
    this.#left = limit ?? Number.POSITIVE_INFINITY
    this.last = cursor === undefined ? last : undefined
    this.position = place.after
    this.known = place.known
    this.#unplaced = cursor === undefined || place.gap !== undefined
    if (this.#unplaced) this.state = 'retained'
  }

  get cursor(): string | undefined {
    if (this.state === 'closed' || this.#unplaced) return this.#cursor
    return this.#idOf(this.state !== 'live' ? this.position : this.#pending ? this.#before : this.#host.position)
  }

  get blocked(): boolean {
    return this.#blocked
  }

  /** How many events it may yet get. */
  get room(): number {
    return this.#left
  }

  get closed(): boolean {
    return this.state === 'closed'
  }

  wants(): TopicPredicate {
    return topicPredicate(this.filters)
  }

  /** Tells the sink that all between `known` and `position` is missing, and begins with what is retained of it. */
  gap(reason: 'evicted' | 'other-epoch' | 'unknown', known: number, position: number): void {
    const cursor = this.cursor ?? ''
    // Which is where it goes on when it ends before it has got what is retained.
    this.#cursor = cursor
    this.#unplaced = true
    this.state = 'retained'
    this.known = known
    this.position = position
    this.#host.counters.gaps++
    this.#sink.gap({ reason, cursor, resumes: this.#idOf(position) })
  }

  /** It has got what is retained. */
  placed(): void {
    this.#unplaced = false
    this.retained = undefined
    this.state = 'replay'
  }

  /** It has got everything there is. */
  join(): void {
    this.state = 'live'
    this.offered = this.position
    this.#sink.live?.()
  }

  /** Gives events to the sink that are retained, or, up to `position`, replayed. */
  give(data: readonly Buffer[], kind: 'retained' | 'replayed', position: number): void {
    this.position = position
    if (data.length === 0) return
    this.#host.counters[kind] += data.length
    if (kind === 'replayed') this.#left -= data.length
    const [only] = data
    this.#write(only && data.length === 1 ? only : Buffer.concat(data), data.length)
    this.#checkLeft()
  }

  /** Adds a live event to what is written at the end of this turn; `start` is the chain of that event alone. */
  offer(start: Chain, sequence: number): void {
    const before = this.#pending
    if (before && before.count >= this.#left) return
    this.offered = sequence
    if (!before) {
      this.#before = sequence - 1
      if (!this.#blocked) this.#host.waits(this)
    }
    const pending = before ? before.with(start) : start
    this.#pending = pending
    const { maxQueuedBytes, maxQueuedEvents } = this.#host.bounds
    if (pending.bytes <= maxQueuedBytes && pending.count <= maxQueuedEvents) return
    if (this.#blocked) this.#cutOff(pending)
    else this.flush()
  }

  /** Gives what waits to the sink. */
  flush(): void {
    const pending = this.#pending
    if (!pending || this.#blocked || this.closed) return
    this.#pending = undefined
    this.#left -= pending.count
    // Until more comes, the place is that of the hub; of somebody who has enough, it is here.
    if (this.#left <= 0) this.position = this.offered
    this.#write(pending.joined(), pending.count)
    this.#checkLeft()
  }

  #write(data: Buffer, count: number): void {
    this.#host.counters.delivered += count
    if (this.#sink.write(data) || this.closed) return
    this.#blocked = true
    this.#sink.onDrain(() => this.#resume())
  }

  #resume(): void {
    if (!this.#blocked || this.closed) return
    this.#blocked = false
    if (this.state === 'live') this.flush()
    else this.#host.resumed(this)
  }

  #checkLeft(): void {
    if (this.#left > 0 || this.closed) return
    this.end('complete', this.#idOf(this.position))
  }

  #cutOff(pending: Chain): void {
    this.#host.counters.cutOff++
    this.#host.counters.dropped += pending.count
    this.end('too-slow')
  }

  /** Ends it, and tells the sink. */
  end(reason: CloseReason, cursor = this.cursor): void {
    if (this.closed) return
    this.#leave(cursor)
    this.#sink.close(reason, cursor)
  }

  close(): void {
    if (!this.closed) this.#leave(this.cursor)
  }

  #leave(cursor: string | undefined): void {
    this.#host.left(this)
    this.#cursor = cursor
    this.#pending = undefined
    this.state = 'closed'
    // What is not read to its end is let go of; where it was being read, that is after this.
    void this.retained?.return().catch(() => {})
    this.retained = undefined
  }

  #idOf(sequence: number): string {
    return formatId(this.#host.epoch, sequence)
  }
}
