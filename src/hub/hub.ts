import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { type Event, isGapMarker } from '../journal/event.js'
import { type Journal, type Position, resolveCursor } from '../journal/journal.js'
import { FilterIndex } from '../topics/filter-index.js'
import { filterDepthProblem } from '../topics/topic-syntax.js'
import { BufferChain } from './buffer-chain.js'
import { DeliveryTracker } from './delivery-tracker.js'
import { EventCache, type EventCacheBounds } from './event-cache.js'
import type { Encoder } from './event-sink.js'
import { ReplayScheduler } from './replay-scheduler.js'
import {
  type HubCounters,
  type QueueBounds,
  type SubscribeOptions,
  Subscriber,
  type SubscriberHost,
  type Subscription,
} from './subscriber.js'
import { WriteQueue } from './write-queue.js'

export type { FilterChange, HubCounters, SubscribeOptions, Subscription } from './subscriber.js'

/** What a hub needs. */
export interface HubOptions {
  /** Closed by whoever opened it, after the hub. */
  readonly journal: Journal
  readonly bounds: QueueBounds & { readonly recent: EventCacheBounds }
  readonly log: Logger
  /** Told what the event loop works on. */
  readonly slices?: SliceMonitor | undefined
}

/** Filters of those who have left that are forgotten in one turn of the event loop: some 2 ms. */
const forgottenAtOnce = 1000

/** Opens a hub on a journal, and reads the newest events, for those who were there a moment ago. */
export async function openHub(options: HubOptions): Promise<Hub> {
  const { journal, bounds } = options
  const oldest = Math.max(journal.first - 1, journal.head - bounds.recent.maxEvents)
  const recent = new EventCache(bounds.recent, oldest)
  for (let after = oldest; after < journal.head; ) {
    const query = { after, through: journal.head, limit: bounds.recent.maxEvents, maxBytes: bounds.recent.maxBytes }
    const portion = await journal.read(query)
    for (const event of portion.events) recent.push(event)
    after = portion.position
  }
  return new Hub(options, recent)
}

/**
 * Gives each event of a journal to everybody whose filters match its topic, once and in order; and to those who come, or
 * come back, what they have missed.
 *
 * Who is live is given references to bytes that are the same for all, and one write for what came in one turn of the
 * event loop. For topics that nobody wants, nothing is encoded.
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
  /** Which events have been written to whom. */
  readonly tracking = new DeliveryTracker()
  readonly #journal: Journal
  readonly #recent: EventCache
  readonly #host: SubscriberHost
  readonly #catchUps: ReplayScheduler
  readonly #subscribers = new Set<Subscriber>()
  /** Those who have come in this turn of the event loop. */
  readonly #newcomers: { readonly subscriber: Subscriber; readonly place: Position }[] = []
  /** Those who have left, and have yet to be forgotten. */
  readonly #gone: Subscriber[] = []
  /** Those who are live, or were. */
  readonly #topics = new FilterIndex<Subscriber>()
  readonly #unwatch: () => void
  #position: number
  readonly #writeQueue: WriteQueue
  #closed = false

  /** @param recent the newest events of the journal, up to its head */
  constructor({ journal, bounds, log, slices }: HubOptions, recent: EventCache) {
    this.#writeQueue = new WriteQueue(slices)
    this.#journal = journal
    this.#recent = recent
    this.#position = journal.head
    const hub = this
    this.#host = {
      epoch: journal.epoch,
      get position() {
        return hub.#position
      },
      counters: this.counters,
      bounds,
      tracking: this.tracking,
      interrupted: () => {
        this.counters.catchingUp++
      },
      resumed: subscriber => this.#catchUps.add(subscriber),
      waits: subscriber => this.#writeQueue.add(subscriber),
      left: subscriber => this.#leave(subscriber),
    }
    const position = (): number => this.#position
    this.#catchUps = new ReplayScheduler({
      journal,
      recent,
      log,
      slices,
      position,
      join: subscriber => this.#join(subscriber),
    })
    this.#unwatch = journal.watch(
      events => {
        slices?.begin('push events')
        for (const event of events) this.#dispatch(event)
      },
      topic => this.counters.catchingUp > 0 || this.#topics.match(topic).length > 0,
    )
  }

  /**
   * Subscribes. The sink is not called before this turn of the event loop is over.
   *
   * @throws {RangeError} where there is no filter, or one has too many levels
   */
  subscribe(options: SubscribeOptions): Subscription {
    const { filters, cursor } = options
    if (filters.length === 0) throw new RangeError('there must be a topic filter')
    if (filters.some(filterDepthProblem)) throw new RangeError('a topic filter has too many levels')
    const place =
      cursor === undefined ? { after: this.#position, known: 0 } : resolveCursor(this.#journal, cursor, filters)
    const subscriber = new Subscriber(this.#host, options, place)
    this.#subscribers.add(subscriber)
    this.counters.subscribers++
    this.counters.catchingUp++
    this.#newcomers.push({ subscriber, place })
    // One for all who come in this turn: who polls comes anew with each event.
    if (this.#newcomers.length === 1) setImmediate(this.#welcome)
    return subscriber
  }

  readonly #welcome = (): void => {
    for (const { subscriber, place } of this.#newcomers.splice(0)) {
      if (this.#closed) subscriber.end('shutting-down')
      if (subscriber.closed) continue
      if (place.gap) subscriber.gap(place.gap, place.known, place.after, place.lost)
      this.#catchUps.add(subscriber)
    }
  }

  #join(subscriber: Subscriber): void {
    this.counters.catchingUp--
    if (subscriber.unlisted > 0) this.#list(subscriber, subscriber.filters)
    subscriber.join()
  }

  /** Changes with which filters a subscriber is found: by those that come and go, which may be one of a thousand. */
  #list(subscriber: Subscriber, filters: readonly string[]): void {
    const [before, after] = [new Set(subscriber.listed), new Set(filters)]
    for (const filter of before) if (!after.has(filter)) this.#topics.remove(filter, subscriber)
    for (const filter of after) if (!before.has(filter)) this.#topics.add(filter, subscriber)
    subscriber.listed = filters
  }

  #leave(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber)
    this.counters.subscribers--
    if (subscriber.listed.length > 0) this.#forgetLater(subscriber)
    if (subscriber.state !== 'live') {
      this.counters.catchingUp--
      this.#catchUps.delete(subscriber)
    }
  }

  /** In turns: a hundred sockets of a thousand filters may go at the same time. */
  #forgetLater(subscriber: Subscriber): void {
    this.#gone.push(subscriber)
    if (this.#gone.length === 1) setImmediate(this.#forgetSome)
  }

  readonly #forgetSome = (): void => {
    let left = forgottenAtOnce
    while (left > 0) {
      const subscriber = this.#gone.pop()
      if (!subscriber) return
      left -= subscriber.listed.length
      this.#list(subscriber, [])
    }
    if (this.#gone.length > 0) setImmediate(this.#forgetSome)
  }

  #dispatch(event: Event): void {
    const { sequence } = event
    if (sequence <= this.#position) return
    // Before it is passed: as they read on, they come to it, and are told.
    if (isGapMarker(event)) for (const subscriber of this.#subscribers) subscriber.interrupt()
    this.#position = sequence
    this.#recent.push(event)
    const groups = this.#topics.match(event.topic)
    if (groups.length === 0) return
    const starts = new Map<Encoder, BufferChain>()
    for (const subscribers of groups) {
      for (const subscriber of subscribers) {
        // By another of its filters, before it joined, or it is not live.
        if (subscriber.offered >= sequence) continue
        const { encode } = subscriber
        let start = starts.get(encode)
        if (!start) {
          start = new BufferChain(this.#recent.encode(event, encode))
          starts.set(encode, start)
        }
        subscriber.offer(start, sequence)
      }
    }
  }

  /** Lets go of everybody. */
  close(): void {
    this.#closed = true
    this.#unwatch()
    for (const subscriber of this.#subscribers) {
      subscriber.flush()
      subscriber.end('shutting-down')
    }
  }
}
