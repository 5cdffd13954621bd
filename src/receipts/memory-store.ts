import type { KeyRange, ReceiptStore, StoreChange } from './store.js'

/** Changes of a batch for each of which the list of keys may be moved. */
const fewChanges = 16

/** Calls after which others have a turn: all that is kept in memory would else be done in one, however much it is. */
const callsPerTurn = 50

/** A store that ends with the process. */
export class MemoryReceiptStore implements ReceiptStore {
  readonly #values = new Map<string, string>()
  /** In order. Of a few that come or go, moving the rest is a copy of memory each. */
  readonly #keys: string[] = []
  #calls = 0
  #closed = false

  async get(key: string): Promise<string | undefined> {
    this.#checkOpen()
    const value = this.#values.get(key)
    await this.#rest()
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
    await this.#rest()
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
    await this.#rest()
  }

  /** Adds a key to the list, or takes it away where it is there. */
  #toggle(key: string): void {
    const index = this.#indexOf(key)
    const isListed = this.#keys[index] === key
    if (isListed) this.#keys.splice(index, 1)
    else this.#keys.splice(index, 0, key)
  }

  /** The same for many, in one pass over those from the first of them on. */
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

  /** To be waited for when a call has done what it does, so that calls come in their order. */
  async #rest(): Promise<void> {
    if (++this.#calls % callsPerTurn === 0) await new Promise(setImmediate)
  }

  #checkOpen(): void {
    if (this.#closed) throw new Error('the store of receipts is closed')
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}
