/** How fast something may happen. */
export interface Rate {
  /** On average. */
  readonly perSecond: number
  /** At once, after it did not happen for a while. */
  readonly burst: number
}

/** Milliseconds since any moment, never going back. */
const monotonic = (): number => performance.now()

/**
 * A token bucket: full with `burst`, filled with `perSecond`. It is one number, the time at which it will be full again
 * (“generic cell rate algorithm”, ITU-T I.371), so that idle connections have no timer and nothing is counted up.
 */
export class TokenBucket {
  readonly #interval: number
  readonly #burst: number
  readonly #now: () => number
  #fullAt = Number.NEGATIVE_INFINITY

  constructor({ perSecond, burst }: Rate, now: () => number = monotonic) {
    this.#interval = 1000 / perSecond
    this.#burst = burst
    this.#now = now
  }

  /** Takes `amount` if it is there. */
  take(amount = 1): boolean {
    const fullAt = Math.max(this.#fullAt, this.#now()) + amount * this.#interval
    if (fullAt - this.#now() > this.#burst * this.#interval + rounding) return false
    this.#fullAt = fullAt
    return true
  }

  /**
   * Takes `amount` also where it is not there: what came over the network has come, and can only be followed by a pause.
   *
   * @returns milliseconds until the debt is paid; 0 where there is none
   */
  spend(amount: number): number {
    const now = this.#now()
    this.#fullAt = Math.max(this.#fullAt, now) + amount * this.#interval
    return Math.max(0, this.#fullAt - now - this.#burst * this.#interval)
  }

  /** Milliseconds until `amount` can be taken; 0 for now. */
  wait(amount = 1): number {
    const now = this.#now()
    const fullAt = Math.max(this.#fullAt, now) + amount * this.#interval
    const missing = fullAt - now - this.#burst * this.#interval
    return missing > rounding ? missing : 0
  }

  /** Whether it is full, so that a new one would be the same. */
  get idle(): boolean {
    return this.#fullAt <= this.#now()
  }
}

/** What adding up fractions of milliseconds may be off. */
const rounding = 1e-6

export interface RateLimitsOptions extends Rate {
  /** As many buckets are remembered; beyond, the one that was used longest ago is forgotten. Default: 100,000. */
  readonly maxKeys?: number
  readonly now?: () => number
}

/**
 * A token bucket for each of many, such as addresses (`networkOf`). Those that are full again are forgotten as others
 * come, two for each new one.
 */
export class RateLimits {
  readonly #rate: Rate
  readonly #maxKeys: number
  readonly #now: () => number
  /** The one that was used longest ago first. */
  readonly #buckets = new Map<string, TokenBucket>()

  constructor({ perSecond, burst, maxKeys = 100_000, now = monotonic }: RateLimitsOptions) {
    this.#rate = { perSecond, burst }
    this.#maxKeys = maxKeys
    this.#now = now
  }

  /** How many are remembered. */
  get size(): number {
    return this.#buckets.size
  }

  /** Takes one for `key`; 0 where it was there, else the milliseconds until it will be. */
  take(key: string): number {
    const bucket = this.#bucketOf(key)
    return bucket.take() ? 0 : bucket.wait()
  }

  /** Takes `amount` for `key`, also where it is not there; see `TokenBucket.spend`. */
  spend(key: string, amount: number): number {
    return this.#bucketOf(key).spend(amount)
  }

  /** Milliseconds until `key` can take `amount`, which is at most the burst; 0 for now. */
  wait(key: string, amount = 1): number {
    return (this.#buckets.get(key) ?? new TokenBucket(this.#rate, this.#now)).wait(amount)
  }

  #bucketOf(key: string): TokenBucket {
    const bucket = this.#buckets.get(key) ?? new TokenBucket(this.#rate, this.#now)
    this.#buckets.delete(key)
    this.#forgetSome()
    this.#buckets.set(key, bucket)
    return bucket
  }

  #forgetSome(): void {
    let looked = 0
    for (const [key, bucket] of this.#buckets) {
      if (this.#buckets.size >= this.#maxKeys || bucket.idle) this.#buckets.delete(key)
      else break
      looked += 1
      if (looked === 2) break
    }
  }
}
