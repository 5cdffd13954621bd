import { FilterIndex } from '../../topics/filter-index.js'
import { isShared } from './shared-filter.js'
import { type SessionShares, SharedSubscriptions } from './shared-subscriptions.js'
import type { StoredSubscription } from './storage-backend.js'
import { filterOverhead } from './subscription-limits.js'

/** A subscription of a session, or what several matching ones are together. */
export interface SessionSubscription extends StoredSubscription {
  readonly clientId: string
}

/**
 * The subscriptions of all sessions; finds the sessions that queue a message: those with a matching filter of QoS 1 or 2. Of a group with
 * a shared subscription, one member.
 */
export class QueueIndex {
  readonly #filters = new FilterIndex<SessionSubscription>()
  readonly #sessions = new Map<string, Map<string, SessionSubscription>>()
  readonly #shared: SessionShares

  /** @param shared gets the shared subscriptions of sessions */
  constructor(shared: SessionShares = new SharedSubscriptions()) {
    this.#shared = shared
  }

  /** The subscriptions of one session. */
  of(clientId: string): SessionSubscription[] {
    return [...(this.#sessions.get(clientId)?.values() ?? [])]
  }

  /** @returns the growth of the session's filters in bytes */
  add(clientId: string, subscriptions: readonly StoredSubscription[]): number {
    let bytes = 0
    for (const subscription of subscriptions) {
      const { topic } = subscription
      // Also where one packet has a filter twice.
      bytes -= this.remove(clientId, [topic])
      const stored = this.#sessions.get(clientId) ?? new Map<string, SessionSubscription>()
      const added = { ...subscription, clientId }
      this.#sessions.set(clientId, stored.set(topic, added))
      if (isShared(topic)) this.#shared.stored(clientId, subscription)
      else if (isIndexed(added)) this.#filters.add(topic, added)
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
      if (isShared(filter)) this.#shared.ended(clientId, filter)
      else if (isIndexed(subscription)) this.#filters.remove(filter, subscription)
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

  /**
   * Each session with a matching filter of QoS 1 or 2, once: with the highest QoS of its matching filters, whether one of them keeps RETAIN,
   * and the identifiers of all [MQTT-3.3.4-3].
   *
   * @param publisher client id of the publisher, whose subscriptions without local messages do not match [MQTT-3.8.3-3]
   */
  match(topic: string, publisher?: string): SessionSubscription[] {
    const bySession = new Map<string, SessionSubscription>()
    const merged = new Set<SessionSubscription>()
    let hasQos0 = false
    for (const values of this.#filters.match(topic)) {
      for (const subscription of values) {
        const { clientId, nl, qos } = subscription
        if (nl && clientId === publisher) continue
        if (qos === 0) hasQos0 = true
        const other = bySession.get(clientId)
        bySession.set(clientId, other ? merge(other, subscription, merged) : subscription)
      }
    }
    for (const { clientId, subscription, hasSession } of this.#shared.prepare(topic)) {
      if (!hasSession) continue
      const other = bySession.get(clientId)
      const one = { ...subscription, clientId }
      bySession.set(clientId, other ? merge(other, one, merged) : one)
      if (subscription.qos === 0) hasQos0 = true
    }
    const found = [...bySession.values()]
    return hasQos0 ? found.filter(({ qos }) => qos > 0) : found
  }
}

interface Merged extends SessionSubscription {
  subscriptionIdentifiers: number[]
}

/**
 * Merges two matching subscriptions of one session.
 *
 * @param merged results of earlier calls, which can be changed
 */
function merge(
  first: SessionSubscription,
  second: SessionSubscription,
  merged: Set<SessionSubscription>,
): SessionSubscription {
  const higher = first.qos < second.qos ? second : first
  const lower = higher === first ? second : first
  const isSame = !lower.subscriptionIdentifiers && !merged.has(first) && (higher.rap || !lower.rap)
  if (isSame) return higher
  const { topic, qos, clientId } = higher
  const ids = merged.has(first) ? (first as Merged).subscriptionIdentifiers : [...(first.subscriptionIdentifiers ?? [])]
  ids.push(...(second.subscriptionIdentifiers ?? []))
  const rap = first.rap === true || second.rap === true
  const together: Merged = { topic, qos, clientId, rap, subscriptionIdentifiers: ids }
  merged.add(together)
  return together
}

/** One of QoS 0 counts for its identifier, where another filter of the session has a higher QoS. */
function isIndexed({ qos, subscriptionIdentifiers }: SessionSubscription): boolean {
  return qos > 0 || subscriptionIdentifiers !== undefined
}

function sizeOf(filter: string): number {
  return Buffer.byteLength(filter) + filterOverhead
}
