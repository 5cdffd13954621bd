import type { Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import { FilterIndex } from '../topics/filter-index.js'

type QueueSubscription = Persistence.QueueSubscription

/** Which sessions a message is queued for: those with a filter of QoS 1 or 2 that matches. */
export class QueueIndex {
  readonly #filters = new FilterIndex<QueueSubscription>()
  readonly #sessions = new Map<string, Map<string, QueueSubscription>>()

  add(clientId: string, subscriptions: readonly Subscription[]): void {
    this.remove(
      clientId,
      subscriptions.map(({ topic }) => topic),
    )
    for (const { topic, qos, rap } of subscriptions) {
      if (qos === 0) continue
      const own = this.#sessions.get(clientId) ?? new Map<string, QueueSubscription>()
      const subscription = { clientId, topic, qos, rap: rap === true }
      this.#sessions.set(clientId, own.set(topic, subscription))
      this.#filters.add(topic, subscription)
    }
  }

  remove(clientId: string, filters: readonly string[]): void {
    const own = this.#sessions.get(clientId)
    if (!own) return
    for (const filter of filters) {
      const subscription = own.get(filter)
      if (subscription) this.#filters.remove(filter, subscription)
      own.delete(filter)
    }
    if (own.size === 0) this.#sessions.delete(clientId)
  }

  removeAll(clientId: string): void {
    this.remove(clientId, [...(this.#sessions.get(clientId)?.keys() ?? [])])
  }

  /** Each session with a filter that matches, once, with the highest QoS of those filters. */
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
