/** Units charged to a key within a window, beyond which its items come after those of others. */
const maxLight = 256 * 1024
/** Length of a window, in milliseconds. */
const window = 1000
/** Keys beyond `maxLight` get one of so many units of work while others wait, so that they are late but never starve. */
const heavyShare = 8
/** Units of an item without a charge. */
const itemUnits = 1024
/** Units that others get at most before the next item of a heavy key. */
const maxDebt = 8 * maxLight

/**
 * A fair queue: `shift` takes items from the queues of the keys, such as networks, in rotation; each keeps its order. Keys that were
 * charged much, as for large messages, come after the others.
 */
export class FairQueue<T> {
  /** Next queue first. */
  readonly #light = new Map<string, T[]>()
  readonly #heavy = new Map<string, T[]>()
  /** Units charged in the current window. */
  readonly #charged = new Map<string, number>()
  readonly #now: () => number
  #windowEnd = 0
  /** Units that light keys get before the next item of a heavy one. */
  #debt = (heavyShare - 1) * itemUnits
  #size = 0

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  get size(): number {
    return this.#size
  }

  push(key: string, item: T): void {
    const queue = this.#light.get(key) ?? this.#heavy.get(key)
    if (queue) queue.push(item)
    else this.#queuesOf(key).set(key, [item])
    this.#size++
  }

  /** Adds items before all others of the key. */
  unshift(key: string, items: readonly T[]): void {
    if (items.length === 0) return
    const queues = this.#heavy.has(key) ? this.#heavy : this.#queuesOf(key)
    queues.set(key, [...items, ...(queues.get(key) ?? [])])
    this.#size += items.length
  }

  /** Removes the first item of the next queue; `undefined` if all are empty. */
  shift(): T | undefined {
    if (this.#heavy.size > 0) this.#resetWindow()
    const isHeavy = this.#light.size === 0 || (this.#heavy.size > 0 && this.#debt <= 0)
    const queues = isHeavy ? this.#heavy : this.#light
    this.#account(isHeavy, itemUnits)
    for (const [key, queue] of queues) {
      const item = queue.shift()
      if (queue.length === 0 || queues.size > 1) queues.delete(key)
      if (queue.length > 0) queues.set(key, queue)
      if (item === undefined) continue
      this.#size--
      return item
    }
    return undefined
  }

  /** Charges `key` for work that is done for it now. */
  charge(key: string, units: number): void {
    this.#resetWindow()
    const charged = (this.#charged.get(key) ?? 0) + units
    this.#charged.set(key, charged)
    this.#account(charged > maxLight, units)
    const queue = charged > maxLight ? this.#light.get(key) : undefined
    if (!queue) return
    this.#light.delete(key)
    this.#heavy.set(key, queue)
  }

  #account(isHeavy: boolean, units: number): void {
    this.#debt = isHeavy ? Math.min(maxDebt, this.#debt + (heavyShare - 1) * units) : Math.max(0, this.#debt - units)
  }

  #queuesOf(key: string): Map<string, T[]> {
    return (this.#charged.get(key) ?? 0) > maxLight ? this.#heavy : this.#light
  }

  /** Starts a new window after the end of the last one. */
  #resetWindow(): void {
    const now = this.#now()
    if (now < this.#windowEnd) return
    this.#windowEnd = now + window
    this.#charged.clear()
    for (const [key, queue] of this.#heavy) this.#light.set(key, queue)
    this.#heavy.clear()
  }
}
