import { Ending } from '../endings.js'
import { networkOf } from './limits.js'
import { type Clock, RateLimits } from './rate-limits.js'

/** Wrong passwords that one address (IPv6: a /64) has at once, and one more every ten seconds. */
const rate = { perSecond: 0.1, burst: 10 }

/** Counts the wrong passwords of each address, whoever found them wrong. */
export class WrongPasswords {
  readonly #limits: RateLimits

  constructor(now?: Clock) {
    this.#limits = new RateLimits({ ...rate, ...(now && { now }) })
  }

  count(address: string): void {
    this.#limits.take(networkOf(address))
  }

  /** @throws {Ending} `too-many-attempts`, with the seconds after which trying again makes sense */
  refuseFlood(address: string): void {
    const wait = this.#limits.wait(networkOf(address))
    if (wait > 0) throw new Ending('too-many-attempts', { retryAfter: Math.ceil(wait / 1000) })
  }
}
