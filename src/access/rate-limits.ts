/** A rate limit. */
export interface Rate {
  /** Average events per second. */
  readonly perSecond: number
  /** Events at once after a pause. */
  readonly burst: number
}

/** Milliseconds since any moment, never going back. */
const monotonic = (): number => performance.now()

/**
 * A token bucket of `burst` tokens, refilled with `perSecond`. Its state is one number, the time at which it will be full again (generic
 * cell rate algorithm, ITU-T I.371), so that it needs no timer.
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

  /** Takes `amount` tokens if it has them. */
  take(amount = 1): boolean {
    const fullAt = Math.max(this.#fullAt, this.#now()) + amount * this.#interval
    if (fullAt - this.#now() > this.#burst * this.#interval + rounding) return false
    this.#fullAt = fullAt
    return true
  }

  /**
   * Takes `amount` tokens even if it has fewer: data that has been received can only be followed by a pause.
   *
   * @param age milliseconds since they were taken
   * @returns milliseconds until the debt is refilled; 0 without debt
   */
  spend(amount: number, age = 0): number {
    const now = this.#now()
    this.#fullAt = Math.max(this.#fullAt, now - age) + amount * this.#interval
    return Math.max(0, this.#fullAt - now - this.#burst * this.#interval)
  }

  /** Milliseconds until it has `amount` tokens; 0 for now. */
  wait(amount = 1): number {
    const now = this.#now()
    const fullAt = Math.max(this.#fullAt, now) + amount * this.#interval
    const missing = fullAt - now - this.#burst * this.#interval
    return missing > rounding ? missing : 0
  }

  /** Whether it is full, as a new one is. */
  get idle(): boolean {
    return this.#fullAt <= this.#now()
  }
}

/** Rounding error of sums of fractional milliseconds. */
const rounding = 1e-6

/** Keys whose tokens wait to be reported; those of further keys are not. */
const maxUnreported = 20_000

/** A rate, or none: `off`. */
export interface OptionalRate {
  readonly perSecond: number | 'off'
  readonly burst: number
}

export interface RateLimitsOptions extends OptionalRate {
  /** Buckets; beyond, the least recently used is evicted. Default: 100,000. */
  readonly maxKeys?: number
  readonly now?: () => number
}

/**
 * A token bucket for each key, such as a network (`networkOf`). Each use evicts up to two full buckets.
 */
export class RateLimits {
  /** `undefined` for no limit. */
  #rate: Rate | undefined
  readonly #maxKeys: number
  readonly #now: () => number
  /** Least recently used first. */
  readonly #buckets = new Map<string, TokenBucket>()
  /** Tokens that were taken and not reported; `undefined` where nobody reports them. */
  #usage: Map<string, number> | undefined

  constructor({ perSecond, burst, maxKeys = 100_000, now = monotonic }: RateLimitsOptions) {
    this.#rate = rateOf({ perSecond, burst })
    this.#maxKeys = maxKeys
    this.#now = now
  }

  /** Applies another rate. Every key begins with a full bucket; with the same rate, nothing changes. */
  configure(rate: OptionalRate): void {
    const { perSecond, burst } = rateOf(rate) ?? {}
    if (perSecond === this.#rate?.perSecond && burst === this.#rate?.burst) return
    this.#rate = rateOf(rate)
    this.#buckets.clear()
  }

  /** Number of buckets. */
  get size(): number {
    return this.#buckets.size
  }

  /** Takes a token of `key`. @returns 0, or milliseconds until there is one */
  take(key: string): number {
    const bucket = this.#bucketOf(key)
    if (!bucket) return 0
    if (!bucket.take()) return bucket.wait()
    this.#note(key, 1)
    return 0
  }

  /** Takes `amount` tokens of `key` even if it has fewer; see `TokenBucket.spend`. */
  spend(key: string, amount: number): number {
    const bucket = this.#bucketOf(key)
    if (!bucket) return 0
    this.#note(key, amount)
    return bucket.spend(amount)
  }

  /** Begins to note the tokens that are taken, for `takeUsage`. */
  reportUsage(): void {
    this.#usage ??= new Map()
  }

  /** The tokens that were taken since they were last reported, of so many keys at most, and forgets them. */
  takeUsage(maxKeys: number): [key: string, amount: number][] {
    const taken: [string, number][] = []
    for (const entry of this.#usage ?? []) {
      if (taken.length >= maxKeys) break
      taken.push(entry)
      this.#usage?.delete(entry[0])
    }
    return taken
  }

  /** Takes tokens that another gateway has taken. @param age milliseconds since then */
  spendElsewhere(key: string, amount: number, age: number): void {
    this.#bucketOf(key)?.spend(amount, age)
  }

  #note(key: string, amount: number): void {
    if (!this.#usage) return
    const before = this.#usage.get(key)
    if (before !== undefined || this.#usage.size < maxUnreported) this.#usage.set(key, (before ?? 0) + amount)
  }

  /** Milliseconds until `key` has `amount` tokens, at most the burst; 0 for now. */
  wait(key: string, amount = 1): number {
    if (!this.#rate) return 0
    return (this.#buckets.get(key) ?? new TokenBucket(this.#rate, this.#now)).wait(amount)
  }

  #bucketOf(key: string): TokenBucket | undefined {
    if (!this.#rate) return undefined
    const bucket = this.#buckets.get(key) ?? new TokenBucket(this.#rate, this.#now)
    this.#buckets.delete(key)
    this.#evict()
    this.#buckets.set(key, bucket)
    return bucket
  }

  #evict(): void {
    let checked = 0
    for (const [key, bucket] of this.#buckets) {
      if (this.#buckets.size >= this.#maxKeys || bucket.idle) this.#buckets.delete(key)
      else break
      checked += 1
      if (checked === 2) break
    }
  }
}

function rateOf({ perSecond, burst }: OptionalRate): Rate | undefined {
  return perSecond === 'off' ? undefined : { perSecond, burst }
}
