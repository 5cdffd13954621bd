import type { Client } from 'aedes'

/** Who subscribes: the same object for as long as a connection lasts. */
export interface SubscribingClient {
  readonly clientId: string
  /** Who it was found to be; `undefined` where nobody asked, and for somebody without a name. */
  readonly user: string | undefined
  /** The client's IP address, or `unix`. */
  readonly address: string
}

/** What is told of the clients' subscriptions. None of it may throw. */
export interface SubscriptionWatcher {
  /** Filters that a client has from now on: those that it was granted, or that its session has. It may have had them before. */
  subscribed(client: SubscribingClient, filters: readonly string[]): void
  /** Filters that it no longer has, because it said so; it may not have had them. */
  unsubscribed(client: SubscribingClient, filters: readonly string[]): void
  /** Its connection is over. Called once for each client that `subscribed` was called for; nothing comes after it. */
  left(client: SubscribingClient): void
}

/** What is needed to tell of subscriptions. */
export interface SubscribersOptions {
  readonly watcher: SubscriptionWatcher
  /** Who a client is; `undefined` for the program's own, of which nothing is told, and for one that is gone. */
  readonly describe: (client: Client) => SubscribingClient | undefined
}

/** Tells who subscribes to what, of each connection from its first filter to its end. */
export class Subscribers {
  readonly #options: SubscribersOptions
  readonly #known = new Map<Client, SubscribingClient>()

  constructor(options: SubscribersOptions) {
    this.#options = options
  }

  /** Call with the filters that `client` was granted, or got back with its session. */
  subscribed(client: Client, filters: readonly string[]): void {
    if (filters.length === 0 || client.closed) return
    const known = this.#known.get(client) ?? this.#options.describe(client)
    if (!known) return
    this.#known.set(client, known)
    this.#options.watcher.subscribed(known, filters)
  }

  /** Call with the filters that `client` has left. Aedes says the same of all filters of one whose connection is over. */
  unsubscribed(client: Client, filters: readonly string[]): void {
    const known = this.#known.get(client)
    if (known && !client.closed) this.#options.watcher.unsubscribed(known, filters)
  }

  /** Call when the connection of `client` is over. */
  left(client: Client): void {
    const known = this.#known.get(client)
    if (!this.#known.delete(client) || !known) return
    this.#options.watcher.left(known)
  }
}
