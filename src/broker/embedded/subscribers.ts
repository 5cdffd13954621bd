import type { Client } from 'aedes'

/** A subscribing client: the same object for as long as its connection lasts. */
export interface SubscribingClient {
  readonly clientId: string
  /** Its user; `undefined` for an anonymous client, and without access control. */
  readonly user: string | undefined
  /** The client's IP address, or `unix`. */
  readonly address: string
}

/** Observer of the clients' subscriptions. It must not throw. */
export interface SubscriptionWatcher {
  /** Called with filters that a client was granted, or has in its session; it may have had them before. */
  subscribed(client: SubscribingClient, filters: readonly string[]): void
  /** Called with the filters of an UNSUBSCRIBE; the client may not have had them. */
  unsubscribed(client: SubscribingClient, filters: readonly string[]): void
  /** Called last, once for each client of `subscribed`: its connection is closed. */
  left(client: SubscribingClient): void
}

export interface SubscribersOptions {
  readonly watcher: SubscriptionWatcher
  /** Describes a client; `undefined` for the gateway's own, which are not reported, and for closed ones. */
  readonly describe: (client: Client) => SubscribingClient | undefined
}

export class Subscribers {
  readonly #options: SubscribersOptions
  readonly #known = new Map<Client, SubscribingClient>()

  constructor(options: SubscribersOptions) {
    this.#options = options
  }

  /** Call with granted filters, or those of a restored session. */
  subscribed(client: Client, filters: readonly string[]): void {
    if (filters.length === 0 || client.closed) return
    const known = this.#known.get(client) ?? this.#options.describe(client)
    if (!known) return
    this.#known.set(client, known)
    this.#options.watcher.subscribed(known, filters)
  }

  /** Call with the filters of an UNSUBSCRIBE. Aedes emits that for all filters of a closed connection, too. */
  unsubscribed(client: Client, filters: readonly string[]): void {
    const known = this.#known.get(client)
    if (known && !client.closed) this.#options.watcher.unsubscribed(known, filters)
  }

  left(client: Client): void {
    const known = this.#known.get(client)
    if (!this.#known.delete(client) || !known) return
    this.#options.watcher.left(known)
  }
}
