import type { Subscription } from 'aedes'

/** The client whose session it is. */
interface Session {
  readonly id: string
}

/**
 * The subscriptions of sessions as they are stored. Aedes' persistences keep a trie of all of them besides, of 10 KiB and more for a filter
 * of 32 levels; `QueueIndex` finds them here.
 */
export interface StoredSubscriptions {
  /** Stores `subscriptions` of a session; one with the same filter is replaced. */
  add(session: Session, subscriptions: readonly Subscription[]): Promise<void>
  remove(session: Session, filters: readonly string[]): Promise<void>
  /** Removes all of a session. */
  clear(session: Session): Promise<void>
  /** All of a session. */
  read(session: Session): Promise<Subscription[]>
}

/** Stored in memory. */
export class MemorySubscriptions implements StoredSubscriptions {
  readonly #sessions = new Map<string, Map<string, Subscription>>()

  async add({ id }: Session, subscriptions: readonly Subscription[]): Promise<void> {
    const stored = this.#sessions.get(id) ?? new Map<string, Subscription>()
    for (const subscription of subscriptions) stored.set(subscription.topic, { ...subscription })
    if (stored.size > 0) this.#sessions.set(id, stored)
  }

  async remove({ id }: Session, filters: readonly string[]): Promise<void> {
    const stored = this.#sessions.get(id)
    for (const filter of filters) stored?.delete(filter)
    if (stored?.size === 0) this.#sessions.delete(id)
  }

  async clear({ id }: Session): Promise<void> {
    this.#sessions.delete(id)
  }

  async read({ id }: Session): Promise<Subscription[]> {
    return [...(this.#sessions.get(id)?.values() ?? [])]
  }
}
