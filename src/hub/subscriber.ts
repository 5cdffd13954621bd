import type { Event } from '../journal/event.js'
import { formatId } from '../journal/event.js'
import type { GapReason, Loss, Position } from '../journal/journal.js'
import { type TopicPredicate, topicPredicate } from '../topics/match.js'
import { filterDepthProblem } from '../topics/topic-syntax.js'
import type { BufferChain } from './buffer-chain.js'
import type { DeliveryTracker } from './delivery-tracker.js'
import type { CloseReason, Encoder, EventSink } from './event-sink.js'
import { FilterBackfill } from './filter-backfill.js'

/** What a subscriber asks for. */
export interface SubscribeOptions {
  /** Valid topic filters (`topicFilterProblem`, `filterDepthProblem`), at least one. */
  readonly filters: readonly string[]
  readonly encode: Encoder
  readonly sink: EventSink
  /** Where it was the last time, in whatever text it has kept. Without it, it first gets what is retained. */
  readonly cursor?: string | undefined
  /** Without a cursor: how many of the newest events it first gets besides. */
  readonly last?: number | undefined
  /** After how many events it is done; what is retained does not count. */
  readonly limit?: number | undefined
  /** Whose it is, where that is to be known of what is written to it. */
  readonly device?: string | undefined
}

/** What becomes of the filters of a subscription that goes on. */
export interface FilterChange {
  /** Valid and shallow filters that come to those that it has; what it has already stays as it is. */
  readonly add?: readonly string[]
  /** Filters that go; at least one is left. */
  readonly remove?: readonly string[]
  /** Where `add` were the last time; without it, what is retained on them is given first. */
  readonly cursor?: string | undefined
  /** Called when it is done, with all its filters: what the sink is given from then on is of these. */
  readonly applied?: (filters: readonly string[]) => void
}

/** Somebody who gets events. */
export interface Subscription {
  /** Where to go on with another subscription, when this one ends now: after what has been given to the sink. */
  readonly cursor: string | undefined
  /** Whether it has got all that was there, of all its filters, so that nothing is being read for it. */
  readonly isLive: boolean
  /**
   * Changes its filters without a hole and without a double: what comes under several filters comes once, and of topics
   * that it had already, nothing that is retained comes again. Changes are made in their order, each when what came
   * before it has been given; `live` of the sink is called anew when all that was there of the new ones has been.
   *
   * @throws {RangeError} where a filter has too many levels
   */
  change(change: FilterChange): void
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
  readonly tracking: DeliveryTracker
  /** It is not live any more, and has something to catch up with. */
  interrupted(): void
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
  filters: readonly string[]
  /** Those with which the hub finds it: what it had when it was live last. */
  listed: readonly string[] = []
  /** Filters that are on their way to join those. */
  joining: FilterBackfill | undefined
  readonly encode: Encoder
  /** How many of the newest events it has yet to be placed before. */
  last: number | undefined
  state: 'retained' | 'replay' | 'live' | 'closed' = 'replay'
  position: number
  /** The retained messages that it gets, while it does: those written after `known`. */
  retained: AsyncGenerator<readonly Event[], void, void> | undefined
  known: number
  /** `Loss.told` of the last loss that the sink was told of. */
  told: readonly number[] | undefined
  /** The newest event that was offered to it; while it is not live, it is offered none. */
  offered = Number.POSITIVE_INFINITY
  readonly #host: SubscriberHost
  readonly #sink: EventSink
  readonly #device: string | undefined
  /** What it had when it came, while there is nothing better. */
  #cursor: string | undefined
  /** How many events it may yet get. */
  #left: number
  #pending: BufferChain | undefined
  /** The place before the first event that waits. */
  #before = 0
  #blocked = false
  /** Whether it gets what is retained, and has no place until it has got all of it. */
  #unplaced: boolean
  #wants: { readonly filters: readonly string[]; readonly predicate: TopicPredicate } | undefined
  /** Changes of its filters that wait for their turn. */
  readonly #changes: FilterChange[] = []

  constructor(host: SubscriberHost, options: SubscribeOptions, place: Position) {
    const { filters, encode, sink, cursor, last, limit, device } = options
    this.#host = host
    this.#sink = sink
    this.#device = device
    this.filters = filters.length === 1 ? filters : [...new Set(filters)]
    this.encode = encode
    this.#cursor = cursor
    this.#left = limit ?? Number.POSITIVE_INFINITY
    this.last = cursor === undefined ? last : undefined
    this.position = place.after
    this.known = place.known
    this.told = place.lost?.told
    this.#unplaced = cursor === undefined || place.gap !== undefined
    if (this.#unplaced) this.state = 'retained'
  }

  get cursor(): string | undefined {
    if (this.state === 'closed' || this.#unplaced) return this.#cursor
    return this.idOf(this.state !== 'live' ? this.position : this.#pending ? this.#before : this.#host.position)
  }

  get isLive(): boolean {
    return this.state === 'live'
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

  /** How many filters the hub does not find it with yet, at the most. */
  get unlisted(): number {
    return this.filters === this.listed ? 0 : this.filters.length
  }

  /** Whether its filters are not yet what they are to be. */
  get changing(): boolean {
    return this.joining !== undefined || this.#changes.length > 0
  }

  /** What it wants; kept for as long as it is not live. */
  wants(): TopicPredicate {
    if (this.#wants?.filters !== this.filters) {
      this.#wants = { filters: this.filters, predicate: topicPredicate(this.filters) }
    }
    return this.#wants.predicate
  }

  /**
   * Tells the sink that events between `known` and `position` are missing, and begins with what is retained of them.
   *
   * @param lost events that are missing after `position`, while others are there
   */
  gap(reason: GapReason, known: number, position: number, lost?: Loss): void {
    const cursor = this.cursor ?? ''
    // Which is where it goes on when it ends before it has got what is retained.
    this.#cursor = cursor
    this.#unplaced = true
    this.state = 'retained'
    this.known = known
    this.position = position
    this.told = lost?.told ?? this.told
    this.#host.counters.gaps++
    this.#sink.gap({ reason, cursor, resumes: this.idOf(Math.max(position, lost?.through ?? 0)) })
  }

  change(change: FilterChange): void {
    if (change.add?.some(filterDepthProblem)) throw new RangeError('a topic filter has too many levels')
    if (this.closed) return
    this.#changes.push(change)
    this.interrupt()
  }

  /** Has it read what comes, and what waits for it, where it is live. */
  interrupt(): void {
    if (this.state !== 'live') return
    this.flush()
    if (this.closed) return
    this.position = this.#pending ? this.#before : this.#host.position
    this.#pending = undefined
    this.offered = Number.POSITIVE_INFINITY
    this.#host.interrupted()
    this.state = 'replay'
    if (!this.#blocked) this.#host.resumed(this)
  }

  /**
   * Makes the changes that wait, as long as it has a place at which to make them. Not while something is read for it.
   *
   * @param locate finds the place of a cursor
   */
  applyChanges(locate: (cursor: string, filters: readonly string[]) => Position): void {
    while (this.state === 'replay' && this.last === undefined && !this.joining) {
      const [change] = this.#changes
      if (!change) return
      const { add = [], cursor } = change
      const place = cursor === undefined ? { after: this.position, known: 0 } : locate(cursor, add)
      // What the new filters have beyond that would come again.
      if (Math.min(place.after, this.#host.position) > this.position) return
      this.#changes.shift()
      this.#apply(change, place)
    }
  }

  #apply({ add = [], remove = [], cursor, applied }: FilterChange, place: Position): void {
    const removed = new Set(remove)
    const kept = new Set(this.filters.filter(filter => !removed.has(filter)))
    const added = [...new Set(add)].filter(filter => !kept.has(filter))
    this.filters = [...kept]
    if (added.length > 0) this.joining = new FilterBackfill(added, topicPredicate(this.filters), place, cursor)
    applied?.([...kept, ...added])
    if (place.gap && this.joining) this.joiningGap(this.joining, place.gap, cursor ?? '')
  }

  /** Tells the sink that something is missing of filters that join. */
  joiningGap({ filters, resumes }: FilterBackfill, reason: GapReason, cursor: string): void {
    if (this.closed) return
    this.#host.counters.gaps++
    this.#sink.gap({ reason, cursor, resumes: this.idOf(resumes), filters })
  }

  /** The filters that joined have got what the others have. */
  joined({ filters }: FilterBackfill): void {
    this.filters = [...this.filters, ...filters]
    this.joining = undefined
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
    this.#wants = undefined
    this.offered = this.position
    this.#sink.live?.()
  }

  /** Gives events to the sink that are retained, or, up to `position`, replayed. */
  give(data: readonly Buffer[], kind: 'retained' | 'replayed', position: number): void {
    const before = this.position
    this.position = position
    if (data.length === 0) return
    this.#host.counters[kind] += data.length
    if (kind === 'replayed') this.#left -= data.length
    const [only] = data
    this.#write(only && data.length === 1 ? only : Buffer.concat(data), data.length)
    if (kind === 'replayed') this.#wrote(before, position)
    this.#checkLeft()
  }

  /** Tells who tracks them of events that it has been given without a change of its place. */
  wroteApart(events: readonly Event[]): void {
    const { tracking } = this.#host
    if (this.#device === undefined || tracking.size === 0) return
    for (const { sequence } of events) tracking.wroteOne(this.#device, sequence)
  }

  /** Tells who tracks them of events that it wants and has been given. */
  #wrote(after: number, through: number): void {
    const { tracking } = this.#host
    if (this.#device !== undefined && tracking.size > 0) tracking.wrote(this.#device, this.filters, after, through)
  }

  /** Adds a live event to what is written at the end of this turn; `start` is the chain of that event alone. */
  offer(start: BufferChain, sequence: number): void {
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
    this.#wrote(this.#before, this.offered)
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
    this.end('complete', this.idOf(this.position))
  }

  #cutOff(pending: BufferChain): void {
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
    this.offered = Number.POSITIVE_INFINITY
    this.state = 'closed'
    // What is not read to its end is let go of; where it was being read, that is after this.
    void this.retained?.return().catch(() => {})
    this.retained = undefined
    this.joining?.close()
    this.joining = undefined
  }

  /** The id of a place. */
  idOf(sequence: number): string {
    return formatId(this.#host.epoch, sequence)
  }
}
