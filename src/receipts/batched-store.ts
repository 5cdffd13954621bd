import { type RepositoryState, stateKey } from './records.js'
import type { KeyRange, ReceiptStore, StoreChange } from './store.js'

/** A record as it is written. */
export type Entry = readonly [key: string, value: string]

/** How many records are read in one go. */
export const portion = 256

/**
 * A store of records in JSON, whose changes are collected until they are written together with the book's state. What is
 * read is what has been written: a change that is collected is not in it yet.
 */
export class BatchedStore {
  readonly #store: ReceiptStore
  #changes: StoreChange[] = []

  constructor(store: ReceiptStore) {
    this.#store = store
  }

  /** How many changes have been collected. */
  get collected(): number {
    return this.#changes.length
  }

  async read<T>(key: string): Promise<T | undefined> {
    const text = await this.#store.get(key)
    return text === undefined ? undefined : JSON.parse(text)
  }

  async has(key: string): Promise<boolean> {
    return (await this.#store.get(key)) !== undefined
  }

  /** The first entries of a range. */
  range(range: KeyRange, limit: number): Promise<Entry[]> {
    return this.#store.range(range, limit)
  }

  /** All of a range. */
  async *all(range: KeyRange): AsyncGenerator<Entry> {
    for await (const entries of this.portions(range)) yield* entries
  }

  /** All of a range, as it is read. */
  async *portions({ gte, lt }: KeyRange): AsyncGenerator<readonly Entry[]> {
    for (;;) {
      const entries = await this.#store.range({ gte, lt }, portion)
      yield entries
      if (entries.length < portion) return
      gte = `${entries.at(-1)?.[0]}\0`
    }
  }

  put(key: string, value: unknown): void {
    this.#changes.push({ type: 'put', key, value: JSON.stringify(value) })
  }

  delete(key: string): void {
    this.#changes.push({ type: 'del', key })
  }

  /** Forgets what was collected. */
  discard(): void {
    this.#changes = []
  }

  /** Writes what was collected, and the state, or nothing of it. */
  async commit(state: RepositoryState): Promise<void> {
    this.put(stateKey, state)
    const changes = this.#changes
    this.#changes = []
    await this.#store.batch(changes)
  }

  /** Forgets a range at once. */
  clear(range: KeyRange): Promise<void> {
    return this.#store.clear(range)
  }
}
