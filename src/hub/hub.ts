import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { type Event, isExpired, isGapMarker } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import { FilterIndex } from '../topics/filter-index.js'
import { filterDepthProblem } from '../topics/topic-syntax.js'
import { LiveEvent } from './buffer-chain.js'
import { DeliveryTracker } from './delivery-tracker.js'
import { EventCache, type EventCacheBounds } from './event-cache.js'
import { ReplayScheduler } from './replay-scheduler.js'
import {
  type HubCounters,
  type QueueBounds,
  type SubscribeOptions,
  Subscriber,
  type SubscriberContext,
  type Subscription,
} from './subscriber.js'
import { WriteQueue } from './write-queue.js'

export type { FilterChange, HubCounters, SubscribeOptions, Subscription } from './subscriber.js'

export interface HubOptions {
  /** Closed by its owner, after the hub. */
  readonly journal: Journal
  readonly bounds: QueueBounds & { readonly recent: EventCacheBounds }
  readonly log: Logger
  /** Told what the event loop works on. */
  readonly slices?: SliceMonitor | undefined
}

/** Filters of closed subscribers that are removed from the index in one tick of the event loop: some 2 ms. */
const removalsPerTick = 1000

/** Opens a hub on a journal, with the newest events in its cache. */
export async function openHub(options: HubOptions): Promise<Hub> {
  const { journal, bounds } = options
  const oldest = Math.max(journal.first - 1, journal.head - bounds.recent.maxEvents)
  const cache = new EventCache(bounds.recent, oldest)
  for (let after = oldest; after < journal.head; ) {
    const { maxEvents: limit, maxBytes } = bounds.recent
    // The cache has no gaps.
    const query = { after, through: journal.head, limit, maxBytes, includesExpired: true }
    const batch = await journal.read(query)
    for (const event of batch.events) cache.push(event)
    after = batch.position
  }
  return new Hub(options, cache)
}

/**
 * Delivers each event of a journal once and in order to every subscriber with a matching filter, after what it has missed.
 *
 * Live subscribers share the encoded bytes of an event, and get all events of one tick of the event loop in one write. Events that nobody wants are
 * not encoded.
 */
export class Hub {
  readonly counters: HubCounters = {
    subscribers: 0,
    catchingUp: 0,
    delivered: 0,
    replayed: 0,
    retained: 0,
    gaps: 0,
    cutOff: 0,
    dropped: 0,
  }
  readonly tracking = new DeliveryTracker()
  readonly #cache: EventCache
  readonly #context: SubscriberContext
  readonly #subscribers = new Set<Subscriber>()
  readonly #newcomers: Subscriber[] = []
  /** Closed subscribers that are still in the index. */
  readonly #removed: Subscriber[] = []
  /** Subscribers that are live, or were. */
  readonly #index = new FilterIndex<Subscriber>()
  readonly #unwatch: () => void
  #position: number
  #closed = false

  /** @param cache with the newest events of the journal, up to its head */
  constructor({ journal, bounds, log, slices }: HubOptions, cache: EventCache) {
    const writeQueue = new WriteQueue(slices)
    this.#cache = cache
    this.#position = journal.head
    const hub = this
    this.#context = {
      journal,
      cache,
      log,
      get position() {
        return hub.#position
      },
      counters: this.counters,
      bounds,
      tracking: this.tracking,
      index: this.#index,
      replays: new ReplayScheduler(slices),
      flushLater: subscriber => writeQueue.add(subscriber),
      closed: subscriber => this.#remove(subscriber),
    }
    this.#unwatch = journal.watch(
      events => {
        slices?.begin('push events')
        for (const event of events) this.#dispatch(event)
      },
      topic => this.counters.catchingUp > 0 || this.#index.match(topic).length > 0,
    )
  }

  /**
   * Subscribes. The sink is not called before this tick of the event loop is over.
   *
   * @throws {RangeError} if there is no filter, or one has too many levels
   */
  subscribe(options: SubscribeOptions): Subscription {
    const { filters } = options
    if (filters.length === 0) throw new RangeError('there must be a topic filter')
    if (filters.some(filterDepthProblem)) throw new RangeError('a topic filter has too many levels')
    const subscriber = new Subscriber(this.#context, options)
    this.#subscribers.add(subscriber)
    this.counters.subscribers++
    this.counters.catchingUp++
    this.#newcomers.push(subscriber)
    // One scan for all of this tick: after each event, all polls are repeated.
    if (this.#newcomers.length === 1) setImmediate(this.#startNewcomers)
    return subscriber
  }

  readonly #startNewcomers = (): void => {
    for (const subscriber of this.#newcomers.splice(0)) {
      if (this.#closed) subscriber.end('shutting-down')
      subscriber.start()
    }
  }

  #remove(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber)
    this.counters.subscribers--
    this.#removed.push(subscriber)
    if (this.#removed.length === 1) setImmediate(this.#unindexSome)
  }

  /** In several ticks: a hundred sockets with a thousand filters each may close at the same time. */
  readonly #unindexSome = (): void => {
    for (let left = removalsPerTick; left > 0; ) {
      const subscriber = this.#removed.pop()
      if (!subscriber) return
      left -= 1 + subscriber.unindex()
    }
    if (this.#removed.length > 0) setImmediate(this.#unindexSome)
  }

  #dispatch(event: Event): void {
    if (event.sequence <= this.#position) return
    // Before the position moves: subscribers then reach the marker when they continue.
    if (isGapMarker(event)) for (const subscriber of this.#subscribers) subscriber.meetGap()
    this.#position = event.sequence
    this.#cache.push(event)
    const groups = this.#index.match(event.topic)
    if (groups.length === 0 || isExpired(event, Date.now())) return
    const live = new LiveEvent(event, this.#cache)
    for (const subscribers of groups) for (const subscriber of subscribers) subscriber.offer(live)
  }

  close(): void {
    this.#closed = true
    this.#unwatch()
    for (const subscriber of this.#subscribers) {
      subscriber.flush()
      subscriber.end('shutting-down')
    }
  }
}
