/** What stands in the way of having more: one’s own half, or that others have theirs. */
export type Limit = 'own' | 'all'

/**
 * A number of places that many share. Each may have half of them at most, and no more than are left for everybody else: so
 * whoever comes finds room, however many have taken what they can get (“dynamic thresholds”, Choudhury and Hahne, 1998).
 */
export class Shares {
  /** How many places there are. */
  readonly most: number
  readonly #taken = new Map<string, number>()
  #total = 0

  constructor(most: number) {
    this.most = most
  }

  /** How many one may have. */
  get half(): number {
    return Math.max(1, Math.floor(this.most / 2))
  }

  /** How many somebody has. */
  of(name: string): number {
    return this.#taken.get(name) ?? 0
  }

  /** Why somebody cannot have so many more; `undefined` where they can. */
  limit(name: string, amount: number): Limit | undefined {
    const own = this.of(name) + amount
    const left = this.most - this.#total - amount
    // One place is no share: it is there for whoever comes first.
    const fits = amount === 0 || (left >= 0 && own <= Math.max(1, left))
    if (fits) return undefined
    return own > this.half ? 'own' : 'all'
  }

  /** Gives somebody so many, whether they can have them or not. */
  take(name: string, amount: number): void {
    this.#taken.set(name, this.of(name) + amount)
    this.#total += amount
  }

  giveBack(name: string, amount: number): void {
    const left = this.of(name) - amount
    if (left === 0) this.#taken.delete(name)
    else this.#taken.set(name, left)
    this.#total -= amount
  }
}
