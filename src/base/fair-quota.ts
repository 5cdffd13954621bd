/** The exceeded bound: the key's half, or the units left for all. */
export type ExceededQuota = 'own' | 'all'

/**
 * A quota of units, such as bytes, shared by keys. A key may hold at most half of them, and at most as many as are left for all others,
 * so that every new key finds room (“dynamic thresholds”, Choudhury and Hahne, 1998).
 */
export class FairQuota {
  /** Units in all. */
  readonly max: number
  readonly #taken = new Map<string, number>()
  #total = 0

  constructor(max: number) {
    this.max = max
  }

  /** Units that one key may hold at most. */
  get half(): number {
    return Math.max(1, Math.floor(this.max / 2))
  }

  /** Units that all keys hold. */
  get total(): number {
    return this.#total
  }

  /** Keys that hold something. */
  get keys(): number {
    return this.#taken.size
  }

  /** Units that `key` holds. */
  of(key: string): number {
    return this.#taken.get(key) ?? 0
  }

  /** Returns the bound that `amount` more units for `key` would exceed; `undefined` if they fit. */
  exceededBy(key: string, amount: number): ExceededQuota | undefined {
    const own = this.of(key) + amount
    const left = this.max - this.#total - amount
    // A quota of one unit cannot be divided: the first key gets it.
    const fits = amount === 0 || (left >= 0 && own <= Math.max(1, left))
    if (fits) return undefined
    return own > this.half ? 'own' : 'all'
  }

  /** Adds `amount` units to `key`, whether they fit or not; see `exceededBy`. */
  take(key: string, amount: number): void {
    if (amount === 0) return
    this.#taken.set(key, this.of(key) + amount)
    this.#total += amount
  }

  giveBack(key: string, amount: number): void {
    if (amount === 0) return
    const left = this.of(key) - amount
    if (left === 0) this.#taken.delete(key)
    else this.#taken.set(key, left)
    this.#total -= amount
  }
}
