import { isTopicFilter } from './topic-filter.js'

/**
 * Stands for no subscription at all, in a session without any: Aedes tells a client of its session only where it has one
 * [MQTT-3.2.2-2]. It is granted to nobody.
 */
export const noSubscription = '$mqway/none'

/**
 * Which filters each connection has been granted: valid ones, up to a number.
 *
 * Aedes asks for one filter after the other, and stores all of a packet's filters when the first of them is granted. So
 * this may be asked twice, and gives the same answer.
 */
export class Grants {
  readonly #max: number
  readonly #granted = new WeakMap<object, Set<string>>()

  /** @param max how many filters one client may have at a time */
  constructor(max: number) {
    this.#max = max
  }

  /** Whether `client` may have `filter`; if so, it counts from now on. */
  grant(client: object, filter: string): boolean {
    const granted = this.#granted.get(client) ?? new Set()
    if (granted.has(filter)) return true
    if (granted.size >= this.#max || filter === noSubscription || !isTopicFilter(filter)) return false
    this.#granted.set(client, granted.add(filter))
    return true
  }

  /** Call when `client` has unsubscribed. */
  release(client: object, filters: readonly string[]): void {
    const granted = this.#granted.get(client)
    for (const filter of filters) granted?.delete(filter)
  }
}
