import type { TimeSlicer } from '../../base/time-slicer.js'
import type { QoS } from '../../mqtt/message.js'
import { FilterIndex } from '../../topics/filter-index.js'
import { filterMatches } from '../../topics/match.js'
import { isShared } from './shared-filter.js'
import type { SharedSubscriptions } from './shared-subscriptions.js'
import type { StoredSubscription } from './storage-backend.js'

/** A connection that gets messages. */
interface SubscribedReceiver {
  readonly client: { readonly id: string; readonly closed: boolean }
}

/** One filter of a subscriber. */
interface LiveSubscription<R> {
  readonly subscriber: Subscriber<R>
  readonly qos: QoS
  /** Left out before MQTT 5, but for bridges. */
  readonly options: StoredSubscription | undefined
}

/** How a message is delivered to one client, by all its matching subscriptions. */
export interface Matched {
  /** The highest QoS of the matching filters [MQTT-3.3.5-1]. */
  qos: QoS
  retainAsPublished: boolean
  identifiers: readonly number[] | undefined
}

/** A connection that a message is delivered to. */
export interface Recipient<R> extends Readonly<Matched> {
  readonly receiver: R
}

/** `Matched`, with an own list of identifiers. */
interface Merged extends Matched {
  identifiers: number[] | undefined
}

/** One connection with all its filters. The members of `Matched` are of the last message that it matched. */
interface Subscriber<R> extends Merged {
  readonly receiver: R
  readonly filters: Map<string, LiveSubscription<R>>
  /** Number of its filters with QoS 0, 1 and 2, and of those with further options. */
  readonly counts: [number, number, number]
  optioned: number
  /** The last message matched. */
  message: number
}

/** More filters of a closed connection are removed in time slices. */
const maxFiltersAtOnce = 64

/** Subscriptions of all connections: a message finds each subscriber once, however many of its filters match. */
export class LiveSubscriptions<R extends SubscribedReceiver> {
  readonly #slicer: TimeSlicer
  readonly #shared: SharedSubscriptions<R>
  readonly #index = new FilterIndex<LiveSubscription<R>>()
  readonly #subscribers = new WeakMap<object, Subscriber<R>>()
  /** Counts messages and changes of subscriptions. */
  #message = 0

  /**
   * @param shared the shared subscriptions of connections and sessions
   * @param slicer for removing the filters of closed connections
   */
  constructor(shared: SharedSubscriptions<R>, slicer: TimeSlicer) {
    this.#shared = shared
    this.#slicer = slicer
  }

  /** Adds a granted subscription, or changes its options. Returns whether the filter is new. */
  subscribe(receiver: R, stored: StoredSubscription): boolean {
    const { topic, qos, nl, rap, subscriptionIdentifiers } = stored
    if (receiver.client.closed) return false
    const subscriber = this.#subscriberOf(receiver)
    const isNew = !subscriber.filters.has(topic)
    const isOfGroup = isShared(topic)
    // A member of a group keeps its turn.
    if (!isNew && !isOfGroup) this.#remove(subscriber, topic)
    else if (!isNew) this.#forget(subscriber, topic)
    const options = subscriptionIdentifiers || nl || rap || isOfGroup ? stored : undefined
    const subscription = { subscriber, qos, options }
    subscriber.filters.set(topic, subscription)
    if (isOfGroup) this.#shared.connected(receiver, stored)
    else this.#index.add(topic, subscription)
    subscriber.counts[qos]++
    if (options) subscriber.optioned++
    return isNew
  }

  #subscriberOf(receiver: R): Subscriber<R> {
    let subscriber = this.#subscribers.get(receiver.client)
    if (!subscriber) {
      subscriber = {
        receiver,
        filters: new Map(),
        counts: [0, 0, 0],
        optioned: 0,
        message: 0,
        qos: 0,
        retainAsPublished: false,
        identifiers: undefined,
      }
      this.#subscribers.set(receiver.client, subscriber)
    }
    return subscriber
  }

  /** Removes a filter of a client. Returns whether it had it. */
  unsubscribe(client: object, filter: string): boolean {
    const subscriber = this.#subscribers.get(client)
    return subscriber !== undefined && this.#remove(subscriber, filter)
  }

  #remove(subscriber: Subscriber<R>, filter: string): boolean {
    const subscription = this.#forget(subscriber, filter)
    if (!subscription) return false
    if (isShared(filter)) this.#shared.disconnected(subscriber.receiver, filter)
    else this.#index.remove(filter, subscription)
    this.#message++
    return true
  }

  #forget(subscriber: Subscriber<R>, filter: string): LiveSubscription<R> | undefined {
    const { filters, counts } = subscriber
    const subscription = filters.get(filter)
    if (!subscription) return undefined
    filters.delete(filter)
    counts[subscription.qos]--
    if (subscription.options) subscriber.optioned--
    return subscription
  }

  /** Removes all filters of a client. Call when its connection is closed. */
  async removeAll(client: object): Promise<void> {
    const subscriber = this.#subscribers.get(client)
    if (!subscriber) return
    const isLong = subscriber.filters.size > maxFiltersAtOnce
    if (isLong) await this.#slicer.next('subscriptions')
    for (const filter of subscriber.filters.keys()) {
      if (isLong && this.#slicer.isOver) await this.#slicer.next('subscriptions')
      this.#remove(subscriber, filter)
    }
  }

  /**
   * The subscribers with a matching filter, each once, and one of each matching group; their members `Matched` hold until the next call.
   *
   * @param publisher client id of the publisher, if it is a client
   */
  match(topic: string, publisher?: string): Recipient<R>[] {
    const message = ++this.#message
    const found: Recipient<R>[] = []
    for (const subscriptions of this.#index.match(topic)) {
      subscriptions.forEach(subscription => {
        const { subscriber, qos, options } = subscription
        if (options?.nl && subscriber.receiver.client.id === publisher) return // [MQTT-3.8.3-3]
        if (subscriber.message !== message) {
          subscriber.message = message
          subscriber.qos = qos
          subscriber.retainAsPublished = false
          subscriber.identifiers = undefined
          if (!subscriber.receiver.client.closed) found.push(subscriber)
        } else if (qos > subscriber.qos) subscriber.qos = qos
        if (options) add(subscriber, options)
      })
    }
    for (const { receiver, subscription } of this.#shared.take(topic)) {
      if (!receiver || receiver.client.closed) continue
      const { qos, rap: retainAsPublished = false, subscriptionIdentifiers: identifiers } = subscription
      found.push({ receiver, qos, retainAsPublished, identifiers })
    }
    return found
  }

  /** How a retained message is delivered to a client; `undefined` if none of its filters matches. */
  matchedOf(client: object, topic: string): Matched | undefined {
    const subscriber = this.#subscribers.get(client)
    if (!subscriber || subscriber.filters.size === 0) return undefined
    const qos = subscriber.optioned === 0 ? onlyQos(subscriber) : undefined
    if (qos !== undefined) return { qos, retainAsPublished: false, identifiers: undefined }
    let matched: Merged | undefined
    for (const [filter, subscription] of subscriber.filters) {
      if (!filterMatches(filter, topic)) continue
      matched ??= { qos: 0, retainAsPublished: false, identifiers: undefined }
      if (subscription.qos > matched.qos) matched.qos = subscription.qos
      if (subscription.options) add(matched, subscription.options)
    }
    return matched
  }
}

/** [MQTT-3.3.4-4] */
function add(matched: Merged, { rap, subscriptionIdentifiers }: Partial<StoredSubscription>): void {
  if (rap) matched.retainAsPublished = true
  if (!subscriptionIdentifiers) return
  matched.identifiers ??= []
  matched.identifiers.push(...subscriptionIdentifiers)
}

const qualities = [0, 1, 2] as const

/** The common QoS of all filters, as with most clients; `undefined` if they differ. */
function onlyQos({ counts, filters }: Pick<Subscriber<unknown>, 'counts' | 'filters'>): QoS | undefined {
  for (const qos of qualities) if (counts[qos] === filters.size) return qos
  return undefined
}
