/** A queue with a line for each key, such as a network: `shift` takes from one line after the other, and each line keeps its order. */
export class FairQueue<T> {
  /** The line whose turn is next first. */
  readonly #lines = new Map<string, T[]>()
  #size = 0

  get size(): number {
    return this.#size
  }

  push(key: string, item: T): void {
    const line = this.#lines.get(key)
    if (line) line.push(item)
    else this.#lines.set(key, [item])
    this.#size++
  }

  /** Puts items before all others of the key. */
  unshift(key: string, items: readonly T[]): void {
    if (items.length === 0) return
    this.#lines.set(key, [...items, ...(this.#lines.get(key) ?? [])])
    this.#size += items.length
  }

  /** Takes the first item of the next line; `undefined` where there is none. */
  shift(): T | undefined {
    for (const [key, line] of this.#lines) {
      const item = line.shift()
      if (line.length === 0 || this.#lines.size > 1) this.#lines.delete(key)
      if (line.length > 0) this.#lines.set(key, line)
      if (item === undefined) continue
      this.#size--
      return item
    }
    return undefined
  }
}
