import type { Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import { FilterIndex } from '../../topics/filter-index.js'
import { filterOverhead } from './subscription-limits.js'

type QueueSubscription = Persistence.QueueSubscription

/** Finds the sessions that queue a message: those with a matching filter of QoS 1 or 2. */
export class QueueIndex {
  readonly #filters = new FilterIndex<QueueSubscription>()
  readonly #sessions = new Map<string, Map<string, QueueSubscription>>()

  /** @returns the growth of the session's filters in bytes */
  add(clientId: string, subscriptions: readonly Subscription[]): number {
    let bytes = -this.remove(
      clientId,
      subscriptions.map(({ topic }) => topic),
    )
    for (const { topic, qos, rap } of subscriptions) {
      const stored = this.#sessions.get(clientId) ?? new Map<string, QueueSubscription>()
      const subscription = { clientId, topic, qos, rap: rap === true }
      this.#sessions.set(clientId, stored.set(topic, subscription))
      if (qos > 0) this.#filters.add(topic, subscription)
      bytes += sizeOf(topic)
    }
    return bytes
  }

  /** @returns the bytes freed */
  remove(clientId: string, filters: readonly string[]): number {
    let bytes = 0
    const stored = this.#sessions.get(clientId)
    if (!stored) return 0
    for (const filter of filters) {
      const subscription = stored.get(filter)
      if (!stored.delete(filter) || !subscription) continue
      if (subscription.qos > 0) this.#filters.remove(filter, subscription)
      bytes += sizeOf(filter)
    }
    if (stored.size === 0) this.#sessions.delete(clientId)
    return bytes
  }

  removeAll(clientId: string): void {
    this.remove(clientId, [...(this.#sessions.get(clientId)?.keys() ?? [])])
  }

  /** Each session with a matching filter, once, with the highest QoS of those filters. */
  match(topic: string): QueueSubscription[] {
    const bySession = new Map<string, QueueSubscription>()
    for (const values of this.#filters.match(topic)) {
      for (const subscription of values) {
        const other = bySession.get(subscription.clientId)
        if (!other || other.qos < subscription.qos) bySession.set(subscription.clientId, subscription)
      }
    }
    return [...bySession.values()]
  }
}

function sizeOf(filter: string): number {
  return Buffer.byteLength(filter) + filterOverhead
}
