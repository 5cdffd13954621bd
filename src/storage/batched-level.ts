import type { Level } from 'level'
import type { RecoveringLevel } from './recovering-level.js'

/** A LevelDB key range. */
export interface KeyRange {
  readonly gte: string
  readonly lt: string
}

/** A change of a key; without a value, the key is deleted. */
export interface Change {
  readonly key: string
  readonly value?: Buffer
}

const valueEncoding = 'buffer'

/** Bytes of a batch; more for a single larger value. */
const maxBatchBytes = 1024 ** 2
/** Changes of a batch. */
const maxBatchChanges = 1000

/** A pending write: changes, or the deletion of a range. */
interface Entry {
  readonly changes: readonly Change[]
  readonly range?: KeyRange
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * A LevelDB database whose changes are written in order, in batches, one batch at a time.
 *
 * LevelDB executes one write at a time, and each waiting one blocks one of libuv's four threads, which then serve neither files nor other
 * databases. Writes that wait here block none. `get` and `getMany` return pending changes; iterators wait until they are written.
 */
export class BatchedLevel {
  readonly #database: RecoveringLevel
  #entries: Entry[] = []
  /** Pending changes, the last one of each key. */
  readonly #pending = new Map<string, Change>()
  #running: Promise<void> | undefined

  constructor(database: RecoveringLevel) {
    this.#database = database
  }

  async get(key: string): Promise<Buffer | undefined> {
    const change = this.#pending.get(key)
    return change ? change.value : (await this.#database.reading()).get<string, Buffer>(key, { valueEncoding })
  }

  /** The values of `keys`, in their order. */
  async getMany(keys: readonly string[]): Promise<(Buffer | undefined)[]> {
    const changes = keys.map(key => this.#pending.get(key))
    const stored = keys.filter((_, index) => !changes[index])
    const database = await this.#database.reading()
    const values =
      stored.length === 0 ? [] : await database.getMany<string, Buffer | undefined>(stored, { valueEncoding })
    let next = 0
    return changes.map(change => (change ? change.value : values[next++]))
  }

  /** Resolves when the change is written. */
  put(key: string, value: Buffer): Promise<void> {
    return this.write([{ key, value }])
  }

  del(key: string): Promise<void> {
    return this.write([{ key }])
  }

  /**
   * Writes changes atomically.
   *
   * @throws {Error} rejects with LevelDB's error, as do all changes of the same batch
   */
  write(changes: readonly Change[]): Promise<void> {
    let bytes = 0
    for (const change of changes) {
      this.#pending.set(change.key, change)
      bytes += change.key.length + (change.value?.length ?? 0)
    }
    return this.#enqueue({ changes, bytes })
  }

  /** Deletes a range, after all earlier changes. */
  clear(range: KeyRange): Promise<void> {
    return this.#enqueue({ changes: [], range, bytes: 0 })
  }

  async *values(range: KeyRange): AsyncGenerator<Buffer> {
    await this.flush()
    yield* (await this.#database.reading()).values<string, Buffer>({ ...range, valueEncoding })
  }

  async *entries(range: KeyRange): AsyncGenerator<[string, Buffer]> {
    await this.flush()
    yield* (await this.#database.reading()).iterator<string, Buffer>({ ...range, valueEncoding })
  }

  /** Resolves when all pending changes are written, or have failed. */
  flush(): Promise<void> {
    return this.#running ? this.#enqueue({ changes: [], bytes: 0 }).catch(() => {}) : Promise.resolve()
  }

  /** Writes pending changes, and closes the database. */
  async close(): Promise<void> {
    await this.#running
    await this.#database.close()
  }

  #enqueue(entry: Pick<Entry, 'changes' | 'range' | 'bytes'>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#entries.push({ ...entry, resolve, reject })
      this.#running ??= this.#run()
    })
  }

  async #run(): Promise<void> {
    // Further changes of this tick join the batch.
    await Promise.resolve()
    while (this.#entries.length > 0) {
      const entries = this.#nextBatch()
      try {
        await this.#write(entries)
        this.#settle(entries)
        for (const { resolve } of entries) resolve()
      } catch (error) {
        this.#settle(entries)
        for (const { reject } of entries) reject(error)
      }
    }
    this.#running = undefined
  }

  /** Returns the entries of the next batch, or a single deletion of a range. */
  #nextBatch(): readonly Entry[] {
    let [count, bytes, changes] = [0, 0, 0]
    for (const entry of this.#entries) {
      if (entry.range) break
      bytes += entry.bytes
      changes += entry.changes.length
      if (count > 0 && (bytes > maxBatchBytes || changes > maxBatchChanges)) break
      count++
    }
    return this.#entries.splice(0, Math.max(1, count))
  }

  #write(entries: readonly Entry[]): Promise<void> {
    return this.#database.write(database => writeTo(database, entries))
  }

  #settle(entries: readonly Entry[]): void {
    for (const { changes } of entries) {
      for (const change of changes) if (this.#pending.get(change.key) === change) this.#pending.delete(change.key)
    }
  }
}

async function writeTo(database: Level, entries: readonly Entry[]): Promise<void> {
  const [{ range } = {}] = entries
  if (range) {
    await database.clear(range)
    return
  }
  const batch = database.batch()
  for (const { changes } of entries) {
    for (const { key, value } of changes) {
      if (value === undefined) batch.del(key)
      else batch.put<string, Buffer>(key, value, { valueEncoding })
    }
  }
  if (batch.length > 0) await batch.write()
  else await batch.close()
}
