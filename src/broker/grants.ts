import { isTopicFilter, type TopicBounds } from './topic-filter.js'

/**
 * Stands for no subscription at all, in a session without any: Aedes tells a client of its session only where it has one
 * [MQTT-3.2.2-2]. It is granted to nobody.
 */
export const noSubscription = '$mqway/none'

/** What decides about a filter. */
export interface GrantsOptions extends TopicBounds {
  /** How many filters one client may have at a time. */
  readonly maxSubscriptions: number
  /** Whether the rules allow it; left out where there are none. */
  readonly maySubscribe?: (client: object, filter: string) => boolean
}

/**
 * Which filters each connection has been granted: valid ones that it may have, up to a number.
 *
 * Aedes asks for one filter after the other, and stores all of a packet's filters when the first of them is granted. So
 * this may be asked twice, and gives the same answer.
 */
export class Grants {
  readonly #options: GrantsOptions
  readonly #granted = new WeakMap<object, Set<string>>()

  constructor(options: GrantsOptions) {
    this.#options = options
  }

  /** Whether `client` may have `filter`; if so, it counts from now on. */
  grant(client: object, filter: string): boolean {
    const granted = this.#granted.get(client) ?? new Set()
    if (granted.has(filter)) return true
    const { maxSubscriptions, maySubscribe } = this.#options
    if (granted.size >= maxSubscriptions || filter === noSubscription) return false
    if (!isTopicFilter(filter, this.#options) || maySubscribe?.(client, filter) === false) return false
    this.#granted.set(client, granted.add(filter))
    return true
  }

  /** The filters that `client` has. */
  of(client: object): ReadonlySet<string> {
    return this.#granted.get(client) ?? new Set()
  }

  /** Call when `client` has unsubscribed. */
  release(client: object, filters: readonly string[]): void {
    const granted = this.#granted.get(client)
    for (const filter of filters) granted?.delete(filter)
  }
}
