import type { AedesPublishPacket, Client, Subscription } from 'aedes'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { FilterIndex } from '../../topics/filter-index.js'
import { filterMatches } from '../../topics/match.js'

type QoS = Subscription['qos']

/** Delivers a message to a subscriber; calls back when it is written. */
export type Deliver = (packet: AedesPublishPacket, done: () => void) => void

/** One filter of a subscriber. */
interface LiveSubscription {
  readonly subscriber: Subscriber
  qos: QoS
}

/** One connection with all its filters, or a listener of Aedes itself. */
export interface Subscriber {
  /** Its filter in Aedes. */
  readonly key: string
  /** `undefined` for a listener of Aedes itself. */
  readonly client: Client | undefined
  /** Set while it listens. */
  deliver: Deliver | undefined
  readonly filters: Map<string, LiveSubscription>
  /** Number of its filters with QoS 0, 1 and 2. */
  readonly counts: [number, number, number]
  /** The last message matched, and the highest QoS of the matching filters [MQTT-3.3.5-1]. */
  message: number
  qos: QoS
}

/** More filters of a closed connection are removed in time slices. */
const maxFiltersAtOnce = 64

/**
 * Subscriptions of all connections: a message finds each subscriber once, however many of its filters match.
 *
 * Aedes would have a listener for each filter and call each matching one, so it gets one filter for all filters of a client.
 */
export class LiveSubscriptions {
  readonly #slicer: TimeSlicer
  readonly #index = new FilterIndex<LiveSubscription>()
  /** By connection, and by a bridge's options, which may differ between filters. */
  readonly #clients = new WeakMap<object, Map<string, Subscriber>>()
  readonly #byKey = new Map<string, Subscriber>()
  #lastSubscriber = 0
  /** Counts messages and changes of subscriptions. */
  #message = 0
  /** The topic of the last message. */
  #topic = ''

  /** @param slicer for removing the filters of closed connections */
  constructor(slicer: TimeSlicer) {
    this.#slicer = slicer
  }

  /**
   * Adds a granted subscription. Returns the subscription for Aedes: one filter for all filters of the client, with QoS 2, because this class decides the
   * QoS.
   */
  subscribe(client: Client, subscription: Subscription & { readonly rh?: number }): Subscription {
    const { topic, qos, rh, rap, nl } = subscription
    const options = `${rh ?? ''}/${rap ? 'rap' : ''}/${nl ? 'nl' : ''}`
    const subscriber = this.#subscriberOf(client, options)
    if (!client.closed) this.#add(subscriber, topic, qos)
    return { ...subscription, topic: subscriber.key, qos: 2 }
  }

  #add(subscriber: Subscriber, filter: string, qos: QoS): void {
    const known = subscriber.filters.get(filter)
    const subscription = known ?? { subscriber, qos }
    if (known) subscriber.counts[known.qos]--
    else {
      subscriber.filters.set(filter, subscription)
      this.#index.add(filter, subscription)
    }
    subscription.qos = qos
    subscriber.counts[qos]++
    this.#message++
  }

  #subscriberOf(client: Client, options: string): Subscriber {
    let subscribers = this.#clients.get(client)
    if (!subscribers) {
      subscribers = new Map()
      this.#clients.set(client, subscribers)
      client.conn.once('close', () => this.#closed(client))
    }
    let subscriber = subscribers.get(options)
    if (!subscriber) {
      subscriber = newSubscriber(`$mqway/subscriber/${++this.#lastSubscriber}`, client)
      subscribers.set(options, subscriber)
      this.#byKey.set(subscriber.key, subscriber)
    }
    return subscriber
  }

  /** Removes filters of a client. */
  unsubscribe(client: object, filters: readonly string[]): void {
    for (const subscriber of this.#clients.get(client)?.values() ?? []) {
      for (const filter of filters) this.#remove(subscriber, filter)
    }
  }

  #remove(subscriber: Subscriber, filter: string): void {
    const subscription = subscriber.filters.get(filter)
    if (!subscription) return
    subscriber.filters.delete(filter)
    subscriber.counts[subscription.qos]--
    this.#index.remove(filter, subscription)
    this.#message++
  }

  #closed(client: object): void {
    for (const subscriber of this.#clients.get(client)?.values() ?? []) {
      this.#byKey.delete(subscriber.key)
      subscriber.deliver = undefined
      void this.#removeAll(subscriber)
    }
  }

  async #removeAll(subscriber: Subscriber): Promise<void> {
    const isLong = subscriber.filters.size > maxFiltersAtOnce
    if (isLong) await this.#slicer.next('subscriptions')
    for (const filter of subscriber.filters.keys()) {
      if (isLong && this.#slicer.isOver) await this.#slicer.next('subscriptions')
      this.#remove(subscriber, filter)
    }
  }

  /** Adds a listener for a client's filter in Aedes, or for a filter of Aedes itself. */
  listen(filter: string, deliver: Deliver): void {
    let subscriber = this.#byKey.get(filter)
    if (!subscriber) {
      subscriber = newSubscriber(filter)
      this.#byKey.set(filter, subscriber)
      this.#add(subscriber, filter, 2)
    }
    subscriber.deliver = deliver
  }

  /** Removes a listener. */
  unlisten(filter: string, deliver: Deliver): void {
    const subscriber = this.#byKey.get(filter)
    if (subscriber?.deliver === deliver) subscriber.deliver = undefined
  }

  /** The subscribers with a matching filter, each once. */
  match(topic: string): Subscriber[] {
    const message = ++this.#message
    this.#topic = topic
    const found: Subscriber[] = []
    for (const subscriptions of this.#index.match(topic)) {
      subscriptions.forEach(({ subscriber, qos }) => {
        if (subscriber.message !== message) {
          subscriber.message = message
          subscriber.qos = qos
          if (subscriber.deliver) found.push(subscriber)
        } else if (qos > subscriber.qos) subscriber.qos = qos
      })
    }
    return found
  }

  /** The highest QoS of the client's filters that match `topic`; `undefined` without one. */
  qosOf(client: object, topic: string): QoS | undefined {
    let highest: QoS | undefined
    for (const subscriber of this.#clients.get(client)?.values() ?? []) {
      const isFound = subscriber.message === this.#message && topic === this.#topic
      const qos = onlyQos(subscriber) ?? (isFound ? subscriber.qos : highestQos(subscriber, topic))
      if (qos !== undefined && (highest === undefined || qos > highest)) highest = qos
    }
    return highest
  }
}

function newSubscriber(key: string, client?: Client): Subscriber {
  return { key, client, deliver: undefined, filters: new Map(), counts: [0, 0, 0], message: 0, qos: 0 }
}

const qualities = [0, 1, 2] as const

/** The common QoS of all filters, as with most clients; `undefined` if they differ. */
function onlyQos({ counts, filters }: Subscriber): QoS | undefined {
  for (const qos of qualities) if (counts[qos] === filters.size && filters.size > 0) return qos
  return undefined
}

function highestQos({ filters }: Subscriber, topic: string): QoS | undefined {
  let highest: QoS | undefined
  for (const [filter, { qos }] of filters) {
    if ((highest === undefined || qos > highest) && filterMatches(filter, topic)) highest = qos
    if (highest === 2) break
  }
  return highest
}
