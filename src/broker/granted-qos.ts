import type { Subscription } from 'aedes'
import { FilterIndex } from '../topics/filter-index.js'

type QoS = Subscription['qos']

/** The subscriptions of one connection. */
interface Granted {
  readonly filters: Map<string, QoS>
  /** Made when it is asked for; gone when the filters change. */
  found: Found | undefined
}

interface Found {
  readonly index: FilterIndex<QoS>
  /** The one QoS that all filters have. */
  readonly only: QoS | undefined
}

/** With which QoS each connection is subscribed to which filters. */
export class GrantedQos {
  readonly #clients = new WeakMap<object, Granted>()

  grant(client: object, { topic, qos }: Subscription): void {
    const granted = this.#clients.get(client) ?? { filters: new Map(), found: undefined }
    granted.filters.set(topic, qos)
    granted.found = undefined
    this.#clients.set(client, granted)
  }

  /** Call when `client` has unsubscribed. */
  release(client: object, filters: readonly string[]): void {
    const granted = this.#clients.get(client)
    if (!granted) return
    for (const filter of filters) granted.filters.delete(filter)
    granted.found = undefined
  }

  /** The highest QoS of the client's filters that match `topic` [MQTT-3.3.5-1]; undefined where none does. */
  of(client: object, topic: string): QoS | undefined {
    const granted = this.#clients.get(client)
    if (!granted) return undefined
    granted.found ??= find(granted.filters)
    const { index, only } = granted.found
    if (only !== undefined) return only
    let highest: QoS | undefined
    for (const values of index.match(topic)) {
      for (const qos of values) if (highest === undefined || qos > highest) highest = qos
    }
    return highest
  }
}

/** Most clients use one QoS for all; then no topic has to be looked up. */
function find(filters: ReadonlyMap<string, QoS>): Found {
  const [only, ...more] = new Set(filters.values())
  const index = new FilterIndex<QoS>()
  if (more.length === 0) return { index, only }
  for (const [filter, qos] of filters) index.add(filter, qos)
  return { index, only: undefined }
}
