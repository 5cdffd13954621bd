import type { Subscription } from 'aedes'
import { FilterIndex } from '../../topics/filter-index.js'
import { filterOverhead } from './subscription-limits.js'

/** A subscription of a session. */
export interface SessionSubscription extends Subscription {
  readonly clientId: string
}

/** The subscriptions of all sessions; finds the sessions that queue a message: those with a matching filter of QoS 1 or 2. */
export class QueueIndex {
  readonly #filters = new FilterIndex<SessionSubscription>()
  readonly #sessions = new Map<string, Map<string, SessionSubscription>>()

  /** The subscriptions of one session. */
  of(clientId: string): SessionSubscription[] {
    return [...(this.#sessions.get(clientId)?.values() ?? [])]
  }

  /** @returns the growth of the session's filters in bytes */
  add(clientId: string, subscriptions: readonly Subscription[]): number {
    const filters = subscriptions.map(({ topic }) => topic)
    let bytes = -this.remove(clientId, filters)
    for (const subscription of subscriptions) {
      const { topic, qos } = subscription
      const stored = this.#sessions.get(clientId) ?? new Map<string, SessionSubscription>()
      const added = { ...subscription, clientId }
      this.#sessions.set(clientId, stored.set(topic, added))
      if (qos > 0) this.#filters.add(topic, added)
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
    this.remove(
      clientId,
      this.of(clientId).map(({ topic }) => topic),
    )
  }

  /** Each session with a matching filter, once, with the highest QoS of those filters. */
  match(topic: string): SessionSubscription[] {
    const bySession = new Map<string, SessionSubscription>()
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
