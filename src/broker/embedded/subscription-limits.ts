import { FairQuota } from '../../base/fair-quota.js'
import type { SubscriptionBound } from '../../base/metrics.js'
import { isTopicFilter, type TopicBounds } from '../../topics/topic-syntax.js'
import { isShared, parseShared } from './shared-filter.js'

/**
 * Placeholder in a session without subscriptions: Aedes sets session-present only if there is one [MQTT-3.2.2-2]. It is never granted.
 */
export const noSubscription = '$mqway/none'

/** Overhead of a filter in the index and the client's tables, in bytes; measured, rounded up. */
export const filterOverhead = 512

/** Bounds of the filters of connected clients. */
export interface FilterBounds extends TopicBounds {
  /** Filters of one client. */
  readonly maxSubscriptions: number
  /** Bytes of UTF-8 of one client's filters. */
  readonly maxSubscriptionBytes: number
  /** Bytes of all clients' filters, with `filterOverhead` for each; shared by users and networks. */
  readonly maxSubscriptionsBytes: number
}

export interface SubscriptionLimitsOptions extends FilterBounds {
  /** Whether the access rules allow it. Default: yes. */
  readonly maySubscribe?: ((client: GrantedClient, filter: string) => boolean) | undefined
  /** Quota key of a client: its user or network; `undefined` for the gateway itself. */
  readonly holderOf?: ((client: GrantedClient) => string | undefined) | undefined
  /** Whether a client's session, if it has one, may grow by `bytes`. */
  readonly fitsSession?: ((client: GrantedClient, bytes: number) => boolean) | undefined
}

interface GrantedClient {
  readonly id: string
}

/** Why a filter was not granted: the access rules, an invalid filter, or the option that bounds it. */
export type SubscriptionRefusal = 'rules' | 'invalid' | SubscriptionBound

interface Granted {
  readonly filters: Set<string>
  readonly holder: string | undefined
  /** Bytes of UTF-8. */
  bytes: number
  closed: boolean
}

/**
 * The granted filters of each connection: valid, allowed, and within bounds. Aedes stores all filters of a packet when the first is granted, so
 * a filter may be checked twice, with the same result.
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

  get figures(): { readonly filters: number; readonly bytes: number } {
    return { filters: this.#filters, bytes: this.#quota.total }
  }

  /**
   * Grants `filter` to `client`, or returns the reason for refusing it.
   *
   * @param isRestored whether it is of the client's session: it is not refused because others have many
   */
  refusal(client: GrantedClient, filter: string, isRestored = false): SubscriptionRefusal | undefined {
    const granted = this.#of(client)
    if (granted.filters.has(filter)) return undefined
    const { maxSubscriptions, maxSubscriptionBytes, maySubscribe } = this.#options
    if (filter === noSubscription || !isTopicFilter(filter, this.#options)) return 'invalid'
    const shared = isShared(filter) ? parseShared(filter) : undefined
    if (isShared(filter) && !shared) return 'invalid'
    if (granted.filters.size >= maxSubscriptions) return 'maxSubscriptions'
    const bytes = Buffer.byteLength(filter)
    if (granted.bytes + bytes > maxSubscriptionBytes) return 'maxSubscriptionBytes'
    if (maySubscribe?.(client, shared?.filter ?? filter) === false) return 'rules'
    // Aedes continues a SUBSCRIBE after its connection is closed.
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

  of(client: GrantedClient): ReadonlySet<string> {
    return this.#granted.get(client)?.filters ?? new Set()
  }

  release(client: GrantedClient, filters: readonly string[]): void {
    const granted = this.#granted.get(client)
    if (!granted || granted.closed) return
    for (const filter of filters)
      if (granted.filters.delete(filter)) this.#count(granted, -1, -Buffer.byteLength(filter))
  }

  left(client: GrantedClient): void {
    const granted = this.#granted.get(client) ?? { filters: new Set(), holder: undefined, bytes: 0, closed: false }
    this.#granted.set(client, granted)
    if (granted.closed) return
    this.#count(granted, -granted.filters.size, -granted.bytes)
    granted.filters.clear()
    granted.closed = true
  }
}
