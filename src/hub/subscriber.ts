import type { Logger } from '../base/log.js'
import { type Event, formatId, isExpired, isGapMarker } from '../journal/event.js'
import { type GapReason, type Journal, type Loss, type Position, resolveCursor } from '../journal/journal.js'
import type { FilterIndex } from '../topics/filter-index.js'
import { matchCost, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { filterDepthProblem } from '../topics/topic-syntax.js'
import type { BufferChain, LiveEvent } from './buffer-chain.js'
import type { DeliveryTracker } from './delivery-tracker.js'
import type { EventCache } from './event-cache.js'
import type { CloseReason, Encoder, EventSink } from './event-sink.js'
import { FilterBackfill } from './filter-backfill.js'
import { type Replaying, type ReplayScheduler, testsPerTick } from './replay-scheduler.js'

/** One batch of a replay; a single event may have more bytes. */
const [batchEvents, batchBytes] = [256, 256 * 1024]

/** Cost of adding one filter to the index, in tests of an event against a filter. */
const testsPerFilter = 4

export interface SubscribeOptions {
  /** Valid topic filters (`topicFilterProblem`, `filterDepthProblem`), at least one. */
  readonly filters: readonly string[]
  readonly encode: Encoder
  readonly sink: EventSink
  /** The cursor of an earlier subscription, as stored by the client. Without one, retained messages are sent first. */
  readonly cursor?: string | undefined
  /** Without a cursor: the number of newest events to send after the retained messages. */
  readonly last?: number | undefined
  /** Events after which it closes as `complete`; retained messages do not count. */
  readonly limit?: number | undefined
  /** The device, where deliveries to it are tracked. */
  readonly device?: string | undefined
}

/** A change of the filters of a subscription. */
export interface FilterChange {
  /** Valid filters that are added; those it has already stay as they are. */
  readonly add?: readonly string[]
  /** Filters that are removed; at least one is left. */
  readonly remove?: readonly string[]
  /** A cursor of `add`; without one, their retained messages are sent first. */
  readonly cursor?: string | undefined
  /** Called when the change is made, with all its filters: what the sink gets from then on is of these. */
  readonly applied?: (filters: readonly string[]) => void
}

/** A subscription, as its owner sees it. */
export interface Subscription {
  /** The cursor with which another subscription continues after what the sink has got; `undefined` if there is none yet. */
  readonly cursor: string | undefined
  /** Whether nothing is being replayed to it. */
  readonly isLive: boolean
  /**
   * Changes its filters with neither gap nor duplicate: an event that several filters match is sent once, and retained messages of topics that it had
   * already are not repeated. Changes are made in order, each after the events before it; the sink's `live` is called again when what was there for
   * the new filters has been replayed.
   *
   * @throws {RangeError} if a filter has too many levels
   */
  change(change: FilterChange): void
  /** Ends it. The sink is not called. */
  close(): void
}

/** Counters of a hub since it was opened, and its current subscribers. */
export interface HubCounters {
  subscribers: number
  /** Of them, those that are not live. */
  catchingUp: number
  /** Events written to sinks, once for each sink, with replayed and retained ones. */
  delivered: number
  replayed: number
  retained: number
  gaps: number
  /** Subscribers that were closed because they read too slowly. */
  cutOff: number
  /** Events that were queued for those; they stay in the journal. */
  dropped: number
}

/** Bounds of the queue of one subscriber whose sink is full. */
export interface QueueBounds {
  readonly maxQueuedEvents: number
  readonly maxQueuedBytes: number
}

/** Parts shared by the subscribers of one hub. */
export interface SubscriberContext {
  readonly journal: Journal
  readonly cache: EventCache
  readonly log: Logger
  /** The sequence of the newest event that live subscribers have been offered. */
  readonly position: number
  readonly counters: HubCounters
  readonly bounds: QueueBounds
  readonly tracking: DeliveryTracker
  readonly index: FilterIndex<Subscriber>
  readonly replays: ReplayScheduler
  /** Has `flush` called in this tick of the event loop or one of the next. */
  flushLater(subscriber: Subscriber): void
  /** It has closed; `unindex` is to be called later. */
  closed(subscriber: Subscriber): void
}

/**
 * One subscription's state: `retained` (its retained messages are read), then `replay` (missed events are read), then `live`; `closed` in the end.
 * A gap leads back to `retained`, a change of filters or a gap marker from `live` to `replay`.
 *
 * The hub calls `start`, `offer`, `interrupt` and `end`, the scheduler the two replay methods. Where it has everything up to the hub's position it
 * becomes live in the same tick in which that is seen, so no event can come in between.
 */
export class Subscriber implements Subscription, Replaying {
  readonly #context: SubscriberContext
  readonly #sink: EventSink
  readonly #encode: Encoder
  readonly #device: string | undefined
  #state: 'retained' | 'replay' | 'live' | 'closed' = 'replay'
  #startPosition: Position | undefined
  #filters: readonly string[]
  /** The filters under which it is in the index: those that it had when it was last live. */
  #indexed: readonly string[] = []
  #predicate: { readonly filters: readonly string[]; readonly matches: TopicPredicate } | undefined
  /** Changes of its filters that are yet to be made. */
  readonly #changes: FilterChange[] = []
  /** The replay of filters that are being added. */
  #backfill: FilterBackfill | undefined
  /** `SubscribeOptions.last`, until its position is known. */
  #last: number | undefined
  /** While it is not live: the sequence up to which it has every matching event. */
  #position: number
  /** The retained messages that are being read: those written after `#known`. */
  #retained: AsyncGenerator<readonly Event[], void, void> | undefined
  #known: number
  /** `Loss.evicted` of the last loss that was reported to the sink. */
  #knownLosses: readonly number[] | undefined
  /** The cursor, if it has no position. */
  #cursor: string | undefined
  /** Whether it has no position because its retained messages are not complete. */
  #unplaced: boolean
  /** Events up to its limit. */
  #left: number
  /** The newest live event that it was offered; infinite while it is not live. */
  #offered = Number.POSITIVE_INFINITY
  #queue: BufferChain | undefined
  /** The sequence before the first queued event. */
  #beforeQueue = 0
  #blocked = false

  constructor(context: SubscriberContext, options: SubscribeOptions) {
    const { filters, encode, sink, cursor, last, limit, device } = options
    const { journal } = context
    const position =
      cursor === undefined ? { after: context.position, known: 0 } : resolveCursor(journal, cursor, filters)
    this.#context = context
    this.#sink = sink
    this.#device = device
    this.#filters = filters.length === 1 ? filters : [...new Set(filters)]
    this.#encode = encode
    this.#cursor = cursor
    this.#left = limit ?? Number.POSITIVE_INFINITY
    this.#last = cursor === undefined ? last : undefined
    this.#startPosition = position
    this.#position = position.after
    this.#known = position.known
    this.#knownLosses = position.lost?.evicted
    this.#unplaced = cursor === undefined || position.gap !== undefined
    if (this.#unplaced) this.#state = 'retained'
  }

  get cursor(): string | undefined {
    if (this.#state === 'closed' || this.#unplaced) return this.#cursor
    return this.#idOf(this.#state === 'live' ? this.#livePosition : this.#position)
  }

  /** The sequence after which nothing has been written to the sink, while it is live. Its cursor may have been after the hub's position. */
  get #livePosition(): number {
    return this.#queue ? this.#beforeQueue : Math.max(this.#context.position, this.#offered)
  }

  get isLive(): boolean {
    return this.#state === 'live'
  }

  /** Begins; before that, the sink is not called. */
  start(): void {
    const position = this.#startPosition
    if (this.#state === 'closed' || !position) return
    this.#startPosition = undefined
    if (position.gap) this.#gap(position.gap, position.known, position.after, position.lost)
    this.#context.replays.add(this)
  }

  change(change: FilterChange): void {
    if (change.add?.some(filterDepthProblem)) throw new RangeError('a topic filter has too many levels')
    if (this.#state === 'closed') return
    this.#changes.push(change)
    this.interrupt()
  }

  /** Queues a live event, which is written at the end of this tick; the hub finds it once for each filter that matches. */
  offer(event: LiveEvent): void {
    const { sequence } = event
    if (this.#offered >= sequence) return
    const before = this.#queue
    if (before && before.count >= this.#left) return
    this.#offered = sequence
    if (!before) {
      this.#beforeQueue = sequence - 1
      if (!this.#blocked) this.#context.flushLater(this)
    }
    const single = event.encoded(this.#encode)
    const queue = before ? before.with(single) : single
    this.#queue = queue
    const { maxQueuedBytes, maxQueuedEvents } = this.#context.bounds
    if (queue.bytes <= maxQueuedBytes && queue.count <= maxQueuedEvents) return
    if (this.#blocked) this.#cutOff(queue)
    else this.flush()
  }

  flush(): void {
    const queue = this.#queue
    if (!queue || this.#blocked || this.#state === 'closed') return
    this.#queue = undefined
    this.#left -= queue.count
    // Its position is the hub's from now on, except where it has reached its limit.
    if (this.#left <= 0) this.#position = this.#offered
    this.#write(queue.joined(), queue.count)
    this.#track(this.#beforeQueue, this.#offered)
    this.#closeAtLimit()
  }

  /** Returns from `live` to `replay`: queued and further events are read from the journal. */
  interrupt(): void {
    if (this.#state !== 'live') return
    this.flush()
    // It may have closed.
    if (!this.isLive) return
    this.#position = this.#livePosition
    this.#queue = undefined
    this.#offered = Number.POSITIVE_INFINITY
    this.#state = 'replay'
    this.#context.counters.catchingUp++
    if (!this.#blocked) this.#context.replays.add(this)
  }

  /** Call before a gap marker: it is read from the journal, also where the cursor was after it, because sequences then continue before the cursor. */
  meetGap(): void {
    this.interrupt()
    this.#position = Math.min(this.#position, this.#context.position)
  }

  replayFromCache(): number | undefined {
    this.#applyChanges()
    if (!this.#isCached()) return undefined
    const from = this.#position
    const indexing = this.#filters === this.#indexed ? 0 : testsPerFilter * this.#filters.length
    if (from < this.#context.position) this.#replayCachedBatch(from)
    // It may have closed, or been given a gap.
    const tests = indexing + (this.#position - from) * matchCost(this.#filters)
    this.#continue()
    return tests
  }

  /** Whether the cache has all that it needs. Events that the journal has evicted are not replayed from there. */
  #isCached(): boolean {
    const { cache, journal } = this.#context
    if (this.#state !== 'replay' || this.#last !== undefined || this.#backfill) return false
    return cache.covers(this.#position) && !journal.lost(this.#filters, this.#position)
  }

  #replayCachedBatch(from: number): void {
    const { cache } = this.#context
    const matches = this.#matches()
    // With a thousand filters, fewer events fit into a tick.
    const events = Math.min(batchEvents, Math.ceil(testsPerTick / matchCost(this.#filters)))
    const end = Math.min(this.#context.position, from + events)
    const now = Date.now()
    const data: Buffer[] = []
    let bytes = 0
    let position = from
    while (position < end && bytes < batchBytes && data.length < this.#left) {
      const event = cache.at(position + 1)
      if (event && isGapMarker(event)) {
        if (position === from) this.#gap('missed', from, from + 1)
        break
      }
      position++
      if (!event || !matches(event.topic) || isExpired(event, now)) continue
      const encoded = cache.encode(event, this.#encode)
      data.push(encoded)
      bytes += encoded.length
    }
    if (position > from) this.#give(data, 'replayed', position)
  }

  async replayFromJournal(): Promise<void> {
    try {
      if (this.#last !== undefined) await this.#findPosition(this.#last)
      else if (this.#backfill) await this.#readBackfill(this.#backfill)
      else if (this.#state === 'retained') await this.#readRetained()
      else if (this.#state === 'replay') await this.#readMissed()
    } catch (error) {
      this.#context.log.error({ err: error }, 'failed to read the journal; the subscriber is closed')
      this.end('journal-unavailable')
    }
    this.#continue()
  }

  async #findPosition(last: number): Promise<void> {
    const { journal } = this.#context
    const position = await journal.latest(this.#filters, last)
    this.#position = Math.min(position, this.#context.position)
    // Without a cursor, nothing that was evicted is missing.
    this.#knownLosses = journal.lost(this.#filters, this.#position)?.evicted
    this.#last = undefined
  }

  async #readRetained(): Promise<void> {
    const through = this.#position
    this.#retained ??= this.#context.journal.retained(this.#filters, { after: this.#known, through })
    const { value: events, done } = await this.#retained.next()
    if (this.#state === 'closed') return
    if (done) {
      this.#unplaced = false
      this.#retained = undefined
      this.#state = 'replay'
    } else {
      this.#give(events.map(this.#encode), 'retained', through)
      this.#trackEach(events)
    }
  }

  async #readMissed(): Promise<void> {
    const after = this.#position
    const batch = await this.#context.journal.read({
      filters: this.#filters,
      wanted: this.#matches(),
      after,
      through: this.#context.position,
      limit: Math.min(batchEvents, this.#left),
      maxBytes: batchBytes,
      knownLosses: this.#knownLosses,
    })
    if (this.#isClosed) return
    const before = batch.events.findIndex(isGapMarker)
    const marker = batch.events[before]
    if (batch.lost) this.#gap('evicted', after, batch.after, batch.lost)
    else if (!marker) this.#give(batch.events.map(this.#encode), 'replayed', batch.position)
    else if (before === 0) this.#gap('missed', marker.sequence - 1, marker.sequence)
    else this.#give(batch.events.slice(0, before).map(this.#encode), 'replayed', marker.sequence - 1)
  }

  /** Gives filters that are added their retained messages or missed events, up to the position of the others. */
  async #readBackfill(backfill: FilterBackfill): Promise<void> {
    const position = this.#position
    const batch = await backfill.read(this.#context.journal, position, batchEvents, batchBytes)
    if (this.#isClosed) return
    if (batch.gap) this.#backfillGap(backfill, batch.gap.reason, this.#idOf(batch.gap.after))
    this.#give(batch.events.map(this.#encode), batch.kind, position)
    this.#trackEach(batch.events)
    if (this.#isClosed || !backfill.isDone(position)) return
    this.#filters = [...this.#filters, ...backfill.filters]
    this.#backfill = undefined
  }

  get #isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** After a batch: becomes live, or schedules the next batch, or waits for the sink. */
  #continue(): void {
    const isComplete = this.#state === 'replay' && this.#last === undefined && !this.#backfill
    if (this.#isClosed) return
    if (isComplete && this.#changes.length === 0 && this.#position >= this.#context.position) this.#goLive()
    else if (!this.#blocked) this.#context.replays.add(this)
  }

  #goLive(): void {
    this.#context.counters.catchingUp--
    this.#updateIndex(this.#filters)
    this.#state = 'live'
    this.#predicate = undefined
    this.#offered = this.#position
    this.#sink.live?.()
  }

  /** Changes only what differs, which may be one of a thousand filters. */
  #updateIndex(filters: readonly string[]): void {
    if (filters === this.#indexed) return
    const { index } = this.#context
    const [before, after] = [new Set(this.#indexed), new Set(filters)]
    for (const filter of before) if (!after.has(filter)) index.remove(filter, this)
    for (const filter of after) if (!before.has(filter)) index.add(filter, this)
    this.#indexed = filters
  }

  /** Removes it from the index. @returns how many filters that were */
  unindex(): number {
    const { length } = this.#indexed
    this.#updateIndex([])
    return length
  }

  /** The predicate of its filters; kept while it is not live. */
  #matches(): TopicPredicate {
    if (this.#predicate?.filters !== this.#filters) {
      this.#predicate = { filters: this.#filters, matches: topicPredicate(this.#filters) }
    }
    return this.#predicate.matches
  }

  /** Makes the changes that are due. A cursor of added filters may be ahead of the position: then the others are replayed up to there first. */
  #applyChanges(): void {
    while (this.#state === 'replay' && this.#last === undefined && !this.#backfill) {
      const [change] = this.#changes
      if (!change) return
      const { add = [], cursor } = change
      const position: Position =
        cursor === undefined ? { after: this.#position, known: 0 } : resolveCursor(this.#context.journal, cursor, add)
      if (Math.min(position.after, this.#context.position) > this.#position) return
      this.#changes.shift()
      this.#apply(change, position)
    }
  }

  #apply({ add = [], remove = [], cursor, applied }: FilterChange, position: Position): void {
    const removed = new Set(remove)
    const kept = new Set(this.#filters.filter(filter => !removed.has(filter)))
    const added = [...new Set(add)].filter(filter => !kept.has(filter))
    this.#filters = [...kept]
    if (added.length > 0) this.#backfill = new FilterBackfill(added, topicPredicate(this.#filters), position, cursor)
    applied?.([...kept, ...added])
    if (position.gap && this.#backfill) this.#backfillGap(this.#backfill, position.gap, cursor ?? '')
  }

  /** Tells the sink that events of filters that are added are missing. */
  #backfillGap({ filters, resumes }: FilterBackfill, reason: GapReason, cursor: string): void {
    if (this.#isClosed) return
    this.#context.counters.gaps++
    if (this.#device !== undefined) this.#context.tracking.hasGap(this.#device)
    this.#sink.gap({ reason, cursor, resumes: this.#idOf(resumes), filters })
  }

  /**
   * Tells the sink that events between `known` and `position` are missing, and begins with their retained messages.
   *
   * @param lost events that are missing after `position`, while others are there
   */
  #gap(reason: GapReason, known: number, position: number, lost?: Loss): void {
    const cursor = this.cursor ?? ''
    // The cursor to continue with if it closes before the retained messages are complete.
    this.#cursor = cursor
    this.#unplaced = true
    this.#state = 'retained'
    this.#known = known
    this.#position = position
    this.#knownLosses = lost?.evicted ?? this.#knownLosses
    this.#context.counters.gaps++
    if (this.#device !== undefined) this.#context.tracking.hasGap(this.#device)
    this.#sink.gap({ reason, cursor, resumes: this.#idOf(Math.max(position, lost?.through ?? 0)) })
  }

  /** Writes retained messages, or missed events up to `position`. */
  #give(data: readonly Buffer[], kind: 'retained' | 'replayed', position: number): void {
    const before = this.#position
    this.#position = position
    if (data.length === 0) return
    this.#context.counters[kind] += data.length
    if (kind === 'replayed') this.#left -= data.length
    const [first] = data
    this.#write(first && data.length === 1 ? first : Buffer.concat(data), data.length)
    if (kind === 'replayed') this.#track(before, position)
    this.#closeAtLimit()
  }

  #write(data: Buffer, count: number): void {
    this.#context.counters.delivered += count
    if (this.#sink.write(data) || this.#isClosed) return
    this.#blocked = true
    this.#sink.onDrain(() => this.#resume())
  }

  #resume(): void {
    if (!this.#blocked || this.#isClosed) return
    this.#blocked = false
    if (this.isLive) this.flush()
    else this.#context.replays.add(this)
  }

  /** Tracks the delivery of the events that it wants, after `after` and up to `through`. */
  #track(after: number, through: number): void {
    const { tracking } = this.#context
    if (this.#device !== undefined && tracking.isActive) {
      tracking.wrote(this.#device, this, this.#filters, after, through)
    }
  }

  /** Tracks the delivery of events that do not move its position. */
  #trackEach(events: readonly Event[]): void {
    const { tracking } = this.#context
    if (this.#device === undefined || !tracking.isActive) return
    for (const { sequence } of events) tracking.wroteOne(this.#device, sequence)
  }

  #closeAtLimit(): void {
    if (this.#left <= 0) this.end('complete', this.#idOf(this.#position))
  }

  #cutOff(queue: BufferChain): void {
    this.#context.counters.cutOff++
    this.#context.counters.dropped += queue.count
    this.end('too-slow')
  }

  /** Closes it, and tells the sink. Idempotent. */
  end(reason: CloseReason, cursor = this.cursor): void {
    if (this.#isClosed) return
    this.#close(cursor)
    this.#sink.close(reason, cursor)
  }

  close(): void {
    if (!this.#isClosed) this.#close(this.cursor)
  }

  #close(cursor: string | undefined): void {
    const { counters, replays } = this.#context
    if (this.#state !== 'live') counters.catchingUp--
    replays.delete(this)
    this.#cursor = cursor
    this.#queue = undefined
    this.#offered = Number.POSITIVE_INFINITY
    this.#state = 'closed'
    // A read that is under way ends before this.
    void this.#retained?.return().catch(() => {})
    this.#retained = undefined
    this.#backfill?.close()
    this.#backfill = undefined
    this.#context.closed(this)
  }

  #idOf(sequence: number): string {
    return formatId(this.#context.journal.epoch, sequence)
  }
}
