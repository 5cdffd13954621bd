import type { Level } from 'level'

/** A LevelDB key range. */
export interface KeyRange {
  readonly gte: string
  readonly lt: string
}

/** One change of a key; without a value, the key is removed. */
export interface Change {
  readonly key: string
  readonly value?: Buffer | string
}

type Encoding = { readonly valueEncoding?: 'buffer' | 'utf8' }

/** Bytes of values that one write to LevelDB holds at most; more where one value alone has more. */
const maxBatchBytes = 1024 ** 2
/** Changes that one write holds at most. */
const maxBatchChanges = 1000

/** What waits to be written: some changes, or the removal of a range. */
interface Entry {
  readonly changes: readonly Change[]
  readonly range?: KeyRange
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * A LevelDB database whose changes are written in their order, many at a time, by one write after the other.
 *
 * LevelDB lets one write in at a time, and each that waits for it holds one of libuv's four threads, which then serve neither files nor other
 * databases. What waits here holds none. `get` and `getMany` return what waits to be written; iterators wait until it is.
 */
export class BatchedLevel {
  readonly #database: Level
  #entries: Entry[] = []
  /** Changes that are not written yet, the last one of each key. */
  readonly #pending = new Map<string, Change>()
  #running: Promise<void> | undefined

  constructor(database: Level) {
    this.#database = database
  }

  async get(key: string): Promise<string | undefined>
  async get(key: string, options: { readonly valueEncoding: 'buffer' }): Promise<Buffer | undefined>
  async get(key: string, options: Encoding = {}): Promise<Buffer | string | undefined> {
    const change = this.#pending.get(key)
    return change ? change.value : this.#database.get<string, Buffer | string>(key, options)
  }

  /** The values of `keys`, in their order. */
  async getMany(keys: readonly string[]): Promise<(Buffer | undefined)[]> {
    const changes = keys.map(key => this.#pending.get(key))
    const stored = keys.filter((_, index) => !changes[index])
    const values =
      stored.length === 0
        ? []
        : await this.#database.getMany<string, Buffer | undefined>(stored, { valueEncoding: 'buffer' })
    let next = 0
    return changes.map(change => (change ? asBuffer(change.value) : values[next++]))
  }

  /** Resolves when the change is written. */
  put(key: string, value: Buffer | string): Promise<void> {
    return this.write([{ key, value }])
  }

  del(key: string): Promise<void> {
    return this.write([{ key }])
  }

  /**
   * Writes changes, all or none.
   *
   * @throws {Error} rejects with LevelDB's error; others of the same write do, too
   */
  write(changes: readonly Change[]): Promise<void> {
    let bytes = 0
    for (const change of changes) {
      this.#pending.set(change.key, change)
      bytes += change.key.length + (change.value?.length ?? 0)
    }
    return this.#enqueue({ changes, bytes })
  }

  /** Removes a range, after what was written before. */
  clear(range: KeyRange): Promise<void> {
    return this.#enqueue({ changes: [], range, bytes: 0 })
  }

  async *values(range: KeyRange): AsyncGenerator<Buffer> {
    await this.flush()
    yield* this.#database.values<string, Buffer>({ ...range, valueEncoding: 'buffer' })
  }

  async *entries(range: KeyRange): AsyncGenerator<[string, Buffer]> {
    await this.flush()
    yield* this.#database.iterator<string, Buffer>({ ...range, valueEncoding: 'buffer' })
  }

  async *keys(range: KeyRange): AsyncGenerator<string> {
    await this.flush()
    yield* this.#database.keys(range)
  }

  /** Resolves when all that waits now is written, or could not be. */
  flush(): Promise<void> {
    return this.#running ? this.#enqueue({ changes: [], bytes: 0 }) : Promise.resolve()
  }

  /** Writes what waits, and closes the database. */
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
    // What else comes in this turn is written with it.
    await Promise.resolve()
    while (this.#entries.length > 0) {
      const entries = this.#take()
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

  /** The removal of a range is a write of its own. */
  #take(): readonly Entry[] {
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

  async #write(entries: readonly Entry[]): Promise<void> {
    const [{ range } = {}] = entries
    if (range) {
      await this.#database.clear(range)
      return
    }
    const batch = this.#database.batch()
    for (const { changes } of entries) {
      for (const { key, value } of changes) {
        if (value === undefined) batch.del(key)
        else
          batch.put<string, Buffer | string>(key, value, typeof value === 'string' ? {} : { valueEncoding: 'buffer' })
      }
    }
    if (batch.length > 0) await batch.write()
    else await batch.close()
  }

  #settle(entries: readonly Entry[]): void {
    for (const { changes } of entries) {
      for (const change of changes) if (this.#pending.get(change.key) === change) this.#pending.delete(change.key)
    }
  }
}

function asBuffer(value: Buffer | string | undefined): Buffer | undefined {
  return typeof value === 'string' ? Buffer.from(value) : value
}
