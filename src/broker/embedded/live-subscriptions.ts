import type { AedesPublishPacket, Client, Subscription } from 'aedes'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { FilterIndex } from '../../topics/filter-index.js'
import { filterMatches } from '../../topics/match.js'

type QoS = Subscription['qos']

/** Hands one message to one subscriber, and calls back when it is written. */
export type Deliver = (packet: AedesPublishPacket, done: () => void) => void

/** One filter of a subscriber. */
interface LiveSubscription {
  readonly subscriber: Subscriber
  qos: QoS
}

/** One connection with all its filters, or one function that Aedes listens with. */
export interface Subscriber {
  /** The filter that Aedes has for it. */
  readonly key: string
  /** Whose connection it is; none for a function of Aedes' own. */
  readonly client: Client | undefined
  /** Set while it listens. */
  deliver: Deliver | undefined
  readonly filters: Map<string, LiveSubscription>
  /** How many of its filters have QoS 0, 1 and 2. */
  readonly counts: [number, number, number]
  /** The last message that one of its filters matches, and the highest QoS of those filters [MQTT-3.3.5-1]. */
  message: number
  qos: QoS
}

/** Filters of a connection that is over that are removed at once; more are removed in slices. */
const fewFilters = 64

/**
 * The subscriptions of all connections: each subscriber is found once for a message, however many of its filters match.
 *
 * Aedes itself would keep a function and an object for each filter, and call each one that matches. So it is given one filter for all of a
 * client, which stands for those that are here.
 */
export class LiveSubscriptions {
  readonly #slicer: TimeSlicer
  readonly #index = new FilterIndex<LiveSubscription>()
  /** By connection, and by the options of a bridge, which may differ by filter. */
  readonly #clients = new WeakMap<object, Map<string, Subscriber>>()
  readonly #byKey = new Map<string, Subscriber>()
  #lastSubscriber = 0
  /** Counts messages, and changes of subscriptions. */
  #message = 0
  /** The topic of the last message. */
  #topic = ''

  /** @param slicer in which the filters of those who left are removed */
  constructor(slicer: TimeSlicer) {
    this.#slicer = slicer
  }

  /**
   * Adds a subscription, which a client was granted; Aedes' `authorizeSubscribe`. Returns it as Aedes is to have it: under the filter that
   * stands for all of this client, and with QoS 2, as the QoS is decided here.
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
      client.conn.once('close', () => this.#left(client))
    }
    let subscriber = subscribers.get(options)
    if (!subscriber) {
      subscriber = newSubscriber(`$mqway/subscriber/${++this.#lastSubscriber}`, client)
      subscribers.set(options, subscriber)
      this.#byKey.set(subscriber.key, subscriber)
    }
    return subscriber
  }

  /** Removes filters of a client, whether it has them or not. */
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

  #left(client: object): void {
    for (const subscriber of this.#clients.get(client)?.values() ?? []) {
      this.#byKey.delete(subscriber.key)
      subscriber.deliver = undefined
      void this.#removeAll(subscriber)
    }
  }

  async #removeAll(subscriber: Subscriber): Promise<void> {
    const isLong = subscriber.filters.size > fewFilters
    if (isLong) await this.#slicer.next('subscriptions')
    for (const filter of subscriber.filters.keys()) {
      if (isLong && this.#slicer.isOver) await this.#slicer.next('subscriptions')
      this.#remove(subscriber, filter)
    }
  }

  /** Has `deliver` called for the filter that stands for a client; or for a filter of Aedes' own. */
  listen(filter: string, deliver: Deliver): void {
    let subscriber = this.#byKey.get(filter)
    if (!subscriber) {
      subscriber = newSubscriber(filter)
      this.#byKey.set(filter, subscriber)
      this.#add(subscriber, filter, 2)
    }
    subscriber.deliver = deliver
  }

  /** Ends that. */
  unlisten(filter: string, deliver: Deliver): void {
    const subscriber = this.#byKey.get(filter)
    if (subscriber?.deliver === deliver) subscriber.deliver = undefined
  }

  /** The subscribers of which a filter matches `topic`, each once. */
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

  /** The highest QoS of the client's filters that match `topic`; undefined where none does. */
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

/** Most clients use one QoS for all filters; then no topic has to be looked up. */
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
