import { FairQuota } from '../../base/fair-quota.js'
import type { SubscriptionBound } from '../../base/subscription-metrics.js'
import { isTopicFilter, type TopicBounds } from '../../topics/topic-syntax.js'

/**
 * Stands for no subscription at all, in a session without any: Aedes tells a client of its session only where it has one
 * [MQTT-3.2.2-2]. It is granted to nobody.
 */
export const noSubscription = '$mqway/none'

/** Bytes that a filter takes besides its own: its entries in the index and in the client's tables. Measured, rounded up. */
export const filterOverhead = 512

/** Bounds of the filters of connected clients. */
export interface FilterBounds extends TopicBounds {
  /** How many filters one client may have at a time. */
  readonly maxSubscriptions: number
  /** Bytes of UTF-8 of all filters of one client. */
  readonly maxSubscriptionBytes: number
  /** Bytes of all filters of all clients, with `filterOverhead` for each; shared by users and networks. */
  readonly maxSubscriptionsBytes: number
}

/** What decides about a filter. */
export interface SubscriptionLimitsOptions extends FilterBounds {
  /** Whether the rules allow it; left out where there are none. */
  readonly maySubscribe?: ((client: GrantedClient, filter: string) => boolean) | undefined
  /** The user or network whose quota a client's filters count for; `undefined` for the program's own. Left out: one for all. */
  readonly holderOf?: ((client: GrantedClient) => string | undefined) | undefined
  /** Whether a client's session, if it has one, may take so many bytes more. */
  readonly fitsSession?: ((client: GrantedClient, bytes: number) => boolean) | undefined
}

/** A connection; by its identity. */
interface GrantedClient {
  readonly id: string
}

/** Why a filter was not granted: the rules do not allow it, it is none, it is of a shared subscription, or the option that bounds it. */
export type SubscriptionRefusal = 'rules' | 'invalid' | 'shared' | SubscriptionBound

/** The filters of one connection. */
interface Granted {
  readonly filters: Set<string>
  readonly holder: string | undefined
  /** Bytes of UTF-8. */
  bytes: number
  closed: boolean
}

/**
 * Which filters each connection has been granted: valid ones that it may have, up to bounds.
 *
 * Aedes asks for one filter after the other, and stores all of a packet's filters when the first of them is granted. So
 * this may be asked twice, and gives the same answer.
 */
export class SubscriptionLimits {
  readonly #options: SubscriptionLimitsOptions
  readonly #granted = new WeakMap<object, Granted>()
  readonly #quota: FairQuota
  #filters = 0

  constructor(options: SubscriptionLimitsOptions) {
    this.#options = options
    this.#quota = new FairQuota(options.maxSubscriptionsBytes)
  }

  /** Filters of all clients, and the bytes that they take. */
  get figures(): { readonly filters: number; readonly bytes: number } {
    return { filters: this.#filters, bytes: this.#quota.total }
  }

  /** Whether `client` may have `filter`; if so, it counts from now on. */
  grant(client: GrantedClient, filter: string): boolean {
    return this.refusal(client, filter) === undefined
  }

  /**
   * Grants `filter` to `client`, or says why not.
   *
   * @param isRestored whether it is of the client's session, which has had it before: it is not lost because others have many
   */
  refusal(client: GrantedClient, filter: string, isRestored = false): SubscriptionRefusal | undefined {
    const granted = this.#of(client)
    if (granted.filters.has(filter)) return undefined
    const { maxSubscriptions, maxSubscriptionBytes, maySubscribe } = this.#options
    if (filter === noSubscription || !isTopicFilter(filter, this.#options)) return 'invalid'
    if (filter.startsWith('$share/')) return 'shared'
    if (granted.filters.size >= maxSubscriptions) return 'maxSubscriptions'
    const bytes = Buffer.byteLength(filter)
    if (granted.bytes + bytes > maxSubscriptionBytes) return 'maxSubscriptionBytes'
    if (maySubscribe?.(client, filter) === false) return 'rules'
    // Aedes goes on with a SUBSCRIBE whose connection is over.
    if (granted.closed) return undefined
    const { holder } = granted
    if (holder !== undefined && !isRestored && this.#quota.exceededBy(holder, bytes + filterOverhead)) {
      return 'maxSubscriptionsBytes'
    }
    if (!isRestored && this.#options.fitsSession?.(client, bytes + filterOverhead) === false) return 'maxSessionsBytes'
    granted.filters.add(filter)
    this.#count(granted, 1, bytes)
    return undefined
  }

  #of(client: GrantedClient): Granted {
    let granted = this.#granted.get(client)
    if (!granted) {
      granted = { filters: new Set(), holder: this.#options.holderOf?.(client), bytes: 0, closed: false }
      this.#granted.set(client, granted)
    }
    return granted
  }

  #count(granted: Granted, filters: number, bytes: number): void {
    granted.bytes += bytes
    this.#filters += filters
    const { holder } = granted
    const size = bytes + filters * filterOverhead
    if (holder === undefined) return
    if (size >= 0) this.#quota.take(holder, size)
    else this.#quota.giveBack(holder, -size)
  }

  /** The filters that `client` has. */
  of(client: GrantedClient): ReadonlySet<string> {
    return this.#granted.get(client)?.filters ?? new Set()
  }

  /** Call when `client` has unsubscribed. */
  release(client: GrantedClient, filters: readonly string[]): void {
    const granted = this.#granted.get(client)
    if (!granted || granted.closed) return
    for (const filter of filters)
      if (granted.filters.delete(filter)) this.#count(granted, -1, -Buffer.byteLength(filter))
  }

  /** Call when the connection of `client` is over. */
  left(client: GrantedClient): void {
    const granted = this.#granted.get(client) ?? { filters: new Set(), holder: undefined, bytes: 0, closed: false }
    this.#granted.set(client, granted)
    if (granted.closed) return
    this.#count(granted, -granted.filters.size, -granted.bytes)
    granted.filters.clear()
    granted.closed = true
  }
}
