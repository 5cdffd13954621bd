import type { KeyRange, ReceiptStore, StoreChange } from './store.js'

/** A store that ends with the process. */
export class MemoryReceiptStore implements ReceiptStore {
  readonly #values = new Map<string, string>()
  /** In order. Most new ones come last in their kind, and moving the rest is one copy of memory. */
  readonly #keys: string[] = []
  #closed = false

  async get(key: string): Promise<string | undefined> {
    this.#checkOpen()
    return this.#values.get(key)
  }

  async range({ gte, lt }: KeyRange, limit: number): Promise<[string, string][]> {
    this.#checkOpen()
    const found: [string, string][] = []
    for (let at = this.#place(gte); at < this.#keys.length && found.length < limit; at++) {
      const key = this.#keys[at] ?? ''
      if (key >= lt) break
      found.push([key, this.#values.get(key) ?? ''])
    }
    return found
  }

  async batch(changes: readonly StoreChange[]): Promise<void> {
    this.#checkOpen()
    for (const change of changes) {
      const { key } = change
      const isKnown = this.#values.has(key)
      if (change.type === 'put') {
        if (!isKnown) this.#keys.splice(this.#place(key), 0, key)
        this.#values.set(key, change.value)
      } else if (isKnown) {
        this.#keys.splice(this.#place(key), 1)
        this.#values.delete(key)
      }
    }
  }

  async clear({ gte, lt }: KeyRange): Promise<void> {
    this.#checkOpen()
    const from = this.#place(gte)
    for (const key of this.#keys.splice(from, this.#place(lt) - from)) this.#values.delete(key)
  }

  /** How many keys come before `key`. */
  #place(key: string): number {
    let [low, high] = [0, this.#keys.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#keys[middle] ?? '') < key) low = middle + 1
      else high = middle
    }
    return low
  }

  #checkOpen(): void {
    if (this.#closed) throw new Error('the store of receipts is closed')
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}
