import type { KeyRange, Store, StoreChange } from '../storage/store.js'
import { type RepositoryState, stateKey } from './records.js'

/** A stored record. */
export type Entry = readonly [key: string, value: string]

/** Records of one read. */
export const batchSize = 256

/**
 * A store of JSON records. Changes are collected, and then written together with the repository's state; reads do not see collected changes.
 */
export class BatchedStore {
  readonly #store: Store
  #changes: StoreChange[] = []

  constructor(store: Store) {
    this.#store = store
  }

  /** Changes that are collected. */
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

  /** The first records of a range. */
  range(range: KeyRange, limit: number): Promise<Entry[]> {
    return this.#store.range(range, limit)
  }

  /** All records of a range. */
  async *all(range: KeyRange): AsyncGenerator<Entry> {
    for await (const entries of this.batches(range)) yield* entries
  }

  /** All records of a range, batch by batch. */
  async *batches({ gte, lt }: KeyRange): AsyncGenerator<readonly Entry[]> {
    for (;;) {
      const entries = await this.#store.range({ gte, lt }, batchSize)
      yield entries
      if (entries.length < batchSize) return
      gte = `${entries.at(-1)?.[0]}\0`
    }
  }

  put(key: string, value: unknown): void {
    this.#changes.push({ type: 'put', key, value: JSON.stringify(value) })
  }

  delete(key: string): void {
    this.#changes.push({ type: 'del', key })
  }

  /** Discards the collected changes. */
  discard(): void {
    this.#changes = []
  }

  /** Writes the collected changes and the state: all or nothing. */
  async commit(state: RepositoryState): Promise<void> {
    this.put(stateKey, state)
    const changes = this.#changes
    this.#changes = []
    await this.#store.batch(changes)
  }

  /** Deletes a range at once. */
  clear(range: KeyRange): Promise<void> {
    return this.#store.clear(range)
  }
}
