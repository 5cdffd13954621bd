/** Units that a key may be charged within a window before its line comes after those of others. */
const maxLight = 256 * 1024
/** Milliseconds after which charges are forgotten. */
const window = 1000
/** One of so many items is that of a key that was charged more, while others wait: it is late, and never left out. */
const heavyShare = 8

/**
 * A queue with a line for each key, such as a network: `shift` takes from one line after the other, and each line keeps its order. Lines of
 * keys that were charged much, as for large messages, come after the others.
 */
export class FairQueue<T> {
  /** The line whose turn is next first. */
  readonly #light = new Map<string, T[]>()
  readonly #heavy = new Map<string, T[]>()
  /** Charges of the current window: as many keys as were charged in it. */
  readonly #charged = new Map<string, number>()
  readonly #now: () => number
  #windowEnd = 0
  #shifts = 0
  #size = 0

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  get size(): number {
    return this.#size
  }

  push(key: string, item: T): void {
    const line = this.#light.get(key) ?? this.#heavy.get(key)
    if (line) line.push(item)
    else this.#linesOf(key).set(key, [item])
    this.#size++
  }

  /** Puts items before all others of the key. */
  unshift(key: string, items: readonly T[]): void {
    if (items.length === 0) return
    const lines = this.#heavy.has(key) ? this.#heavy : this.#linesOf(key)
    lines.set(key, [...items, ...(lines.get(key) ?? [])])
    this.#size += items.length
  }

  /** Takes the first item of the next line; `undefined` where there is none. */
  shift(): T | undefined {
    if (this.#heavy.size > 0) this.#forget()
    const isHeavy = this.#light.size === 0 || (this.#heavy.size > 0 && ++this.#shifts % heavyShare === 0)
    const lines = isHeavy ? this.#heavy : this.#light
    for (const [key, line] of lines) {
      const item = line.shift()
      if (line.length === 0 || lines.size > 1) lines.delete(key)
      if (line.length > 0) lines.set(key, line)
      if (item === undefined) continue
      this.#size--
      return item
    }
    return undefined
  }

  /** Charges `key` for work that is done for it now. */
  charge(key: string, units: number): void {
    this.#forget()
    const charged = (this.#charged.get(key) ?? 0) + units
    this.#charged.set(key, charged)
    const line = charged > maxLight ? this.#light.get(key) : undefined
    if (!line) return
    this.#light.delete(key)
    this.#heavy.set(key, line)
  }

  #linesOf(key: string): Map<string, T[]> {
    return (this.#charged.get(key) ?? 0) > maxLight ? this.#heavy : this.#light
  }

  /** Begins a new window where the last one is over. */
  #forget(): void {
    const now = this.#now()
    if (now < this.#windowEnd) return
    this.#windowEnd = now + window
    this.#charged.clear()
    for (const [key, line] of this.#heavy) this.#light.set(key, line)
    this.#heavy.clear()
  }
}
