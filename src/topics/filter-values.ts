/** The values of one topic filter: most have one, which takes no table. No value is `undefined`. */
export class FilterValues<V> {
  readonly filter: string
  /** The only value, where there is one. */
  #only: V | undefined
  /** All of them, once there were two. */
  #all: Set<V> | undefined

  constructor(filter: string) {
    this.filter = filter
  }

  get size(): number {
    return this.#all ? this.#all.size : this.#only === undefined ? 0 : 1
  }

  has(value: V): boolean {
    return this.#all ? this.#all.has(value) : this.#only === value
  }

  add(value: V): void {
    if (this.#all) this.#all.add(value)
    else if (this.#only === undefined || this.#only === value) this.#only = value
    else {
      this.#all = new Set([this.#only, value])
      this.#only = undefined
    }
  }

  /** @returns whether it was there */
  delete(value: V): boolean {
    if (this.#all) return this.#all.delete(value)
    if (this.#only !== value) return false
    this.#only = undefined
    return true
  }

  /** Calls `take` with each value, in the order in which they came. */
  forEach(take: (value: V) => void): void {
    if (this.#all) this.#all.forEach(take)
    else if (this.#only !== undefined) take(this.#only)
  }

  [Symbol.iterator](): IterableIterator<V> {
    if (this.#all) return this.#all.values()
    return (this.#only === undefined ? [] : [this.#only]).values()
  }
}
