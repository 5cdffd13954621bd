import type { KeyRange, Store, StoreChange } from './store.js'

/** Changed keys of a batch up to which each is spliced into the list by itself. */
const fewChanges = 16

/** Calls between two yields to the event loop: without them, a long series of calls would block it. */
const callsPerTurn = 50

/** Keys that are merged between two yields: one or two milliseconds. */
const mergeBatchSize = 10_000

/** A store that ends with the process. */
export class MemoryStore implements Store {
  readonly #values = new Map<string, string>()
  /** Sorted. For a few changes, `splice` is fast, because it copies memory. */
  #keys: string[] = []
  #calls = 0
  #closed = false

  /** Adds records to an empty store, a part in each iteration of the event loop. Of records with one key, the last one counts. */
  async load(pages: AsyncIterable<Iterable<readonly [key: string, value: string]>>): Promise<void> {
    let lists: string[][] = []
    for await (const page of pages) {
      const keys: string[] = []
      for (const [key, value] of page) {
        if (!this.#values.has(key)) keys.push(key)
        this.#values.set(key, value)
      }
      lists.push(keys.sort())
    }
    while (lists.length > 1) {
      const merged: string[][] = []
      for (let at = 0; at < lists.length; at += 2) merged.push(await merge(lists[at] ?? [], lists[at + 1] ?? []))
      lists = merged
    }
    this.#keys = lists[0] ?? []
  }

  async get(key: string): Promise<string | undefined> {
    this.#checkOpen()
    const value = this.#values.get(key)
    await this.#yield()
    return value
  }

  async range({ gte, lt }: KeyRange, limit: number): Promise<[string, string][]> {
    this.#checkOpen()
    const found: [string, string][] = []
    for (let at = this.#indexOf(gte); at < this.#keys.length && found.length < limit; at++) {
      const key = this.#keys[at] ?? ''
      if (key >= lt) break
      found.push([key, this.#values.get(key) ?? ''])
    }
    await this.#yield()
    return found
  }

  async batch(changes: readonly StoreChange[]): Promise<void> {
    this.#checkOpen()
    const wasKnown = new Map<string, boolean>()
    for (const { key } of changes) wasKnown.set(key, this.#values.has(key))
    for (const change of changes) {
      if (change.type === 'put') this.#values.set(change.key, change.value)
      else this.#values.delete(change.key)
    }
    const changed = [...wasKnown].filter(([key, was]) => this.#values.has(key) !== was).map(([key]) => key)
    if (changed.length > fewChanges) this.#merge(changed)
    else for (const key of changed) this.#toggle(key)
    await this.#yield()
  }

  /** Adds a key to the list, or removes it. */
  #toggle(key: string): void {
    const index = this.#indexOf(key)
    const isListed = this.#keys[index] === key
    if (isListed) this.#keys.splice(index, 1)
    else this.#keys.splice(index, 0, key)
  }

  /** Adds or removes many keys, in one pass from the first of them on. */
  #merge(changed: string[]): void {
    changed.sort()
    const rest = this.#keys.splice(this.#indexOf(changed[0] ?? ''))
    let at = 0
    for (const key of changed) {
      for (; at < rest.length && (rest[at] ?? '') < key; at++) this.#keys.push(rest[at] ?? '')
      if (rest[at] === key) at++
      else this.#keys.push(key)
    }
    for (; at < rest.length; at++) this.#keys.push(rest[at] ?? '')
  }

  async clear({ gte, lt }: KeyRange): Promise<void> {
    this.#checkOpen()
    const from = this.#indexOf(gte)
    for (const key of this.#keys.splice(from, this.#indexOf(lt) - from)) this.#values.delete(key)
  }

  /** Number of keys before `key`. */
  #indexOf(key: string): number {
    let [low, high] = [0, this.#keys.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#keys[middle] ?? '') < key) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Yields to the event loop from time to time. Awaited at the end of each call, so that calls stay in order. */
  async #yield(): Promise<void> {
    if (++this.#calls % callsPerTurn === 0) await new Promise(setImmediate)
  }

  #checkOpen(): void {
    if (this.#closed) throw new Error('the store is closed')
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}

/** Merges two sorted lists without common keys; yields to the event loop. */
async function merge(some: readonly string[], others: readonly string[]): Promise<string[]> {
  const merged: string[] = []
  for (let [at, other] = [0, 0]; at < some.length || other < others.length; ) {
    const isFirst = other === others.length || (at < some.length && (some[at] ?? '') < (others[other] ?? ''))
    merged.push((isFirst ? some[at++] : others[other++]) ?? '')
    if (merged.length % mergeBatchSize === 0) await new Promise(setImmediate)
  }
  return merged
}
