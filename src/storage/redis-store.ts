import { randomBytes } from 'node:crypto'
import { MemoryStore } from './memory-store.js'
import { type Redis, Script } from './redis.js'
import { type KeyRange, type Store, type StoreChange, StoreClosed } from './store.js'

export interface RedisStoreOptions {
  readonly redis: Redis
  /** The key of the lease, and its holder's token: without it, nothing is written. */
  readonly lease: string
  readonly token: string
  /** The key of the records, a hash. */
  readonly key: string
}

/** The field of the last batch; records have `:` before their keys. */
const versionField = 'version'

/** Records that are read, or deleted by `clear`, at once. */
const batchSize = 1000

/**
 * Makes the changes of a batch. Keys: lease, records. Arguments: token, version, next version; how many are put, and key and value of each; and the
 * keys that are deleted. @returns `ok`, `fenced`, `changed`
 */
const batchScript = new Script(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'fenced' end
if (redis.call('HGET', KEYS[2], '${versionField}') or '') ~= ARGV[2] then return 'changed' end
local at = 5
for _ = 1, tonumber(ARGV[4]) do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for index = at, #ARGV do redis.call('HDEL', KEYS[2], ARGV[index]) end
redis.call('HSET', KEYS[2], '${versionField}', ARGV[3])
return 'ok'
`)

/** The records, as they are in Redis after the batch `version`. */
interface Copy {
  readonly records: MemoryStore
  version: string
}

/**
 * A store in Redis, which only the holder of a lease writes, and of which it has a copy in memory.
 *
 * A batch names the one before it. Where that is not the last one in Redis, because an answer was lost, or Redis has lost its end, the batch is refused, and
 * everything is read again.
 */
export class RedisStore implements Store {
  readonly #options: RedisStoreOptions
  #copy: Promise<Copy> | undefined
  /** The last batch, so that changes are made one after the other. */
  #writing: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: RedisStoreOptions) {
    this.#options = options
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#load()).records.get(key)
  }

  async range(range: KeyRange, limit: number): Promise<(readonly [string, string])[]> {
    return (await this.#load()).records.range(range, limit)
  }

  batch(changes: readonly StoreChange[]): Promise<void> {
    const writing = this.#writing.then(() => this.#write(changes))
    this.#writing = writing.catch(() => {})
    return writing
  }

  async clear(range: KeyRange): Promise<void> {
    for (;;) {
      const records = await this.range(range, batchSize)
      if (records.length === 0) return
      await this.batch(records.map(([key]) => ({ type: 'del', key })))
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#writing
    this.#copy = undefined
  }

  async #write(changes: readonly StoreChange[]): Promise<void> {
    const copy = await this.#load()
    const last = new Map(changes.map(change => [change.key, change]))
    const puts: string[] = []
    const deleted: string[] = []
    for (const change of last.values()) {
      if (change.type === 'put') puts.push(`:${change.key}`, change.value)
      else deleted.push(`:${change.key}`)
    }
    const { redis, lease, token, key } = this.#options
    const next = randomBytes(9).toString('base64')
    const args = [token, copy.version, next, puts.length / 2, ...puts, ...deleted]
    try {
      const outcome = String(await batchScript.run(redis, [lease, key], args))
      if (outcome === 'fenced') {
        // A token is never valid again.
        this.#closed = true
        throw new StoreClosed('another gateway has the lease: the store is closed')
      }
      if (outcome === 'changed') throw new Error('Redis has another state than this gateway')
      copy.version = next
      await copy.records.batch(changes)
    } catch (error) {
      // Whether Redis has made the changes is read from there.
      this.#copy = undefined
      throw error
    }
  }

  #load(): Promise<Copy> {
    if (this.#closed) return Promise.reject(new StoreClosed('the store is closed'))
    if (this.#copy) return this.#copy
    const loading = this.#read()
    this.#copy = loading
    loading.catch(() => {
      if (this.#copy === loading) this.#copy = undefined
    })
    return loading
  }

  async #read(): Promise<Copy> {
    const { redis, key } = this.#options
    const version = (await redis.hget(key, versionField)) ?? ''
    const records = new MemoryStore()
    await records.load(recordsOf(redis, key))
    return { records, version }
  }
}

/** All records of a hash; HSCAN may return one several times. */
async function* recordsOf(redis: Redis, hash: string): AsyncGenerator<[key: string, value: string][], void, void> {
  let cursor = '0'
  do {
    const [next, values] = await redis.hscan(hash, cursor, 'COUNT', batchSize)
    const records: [string, string][] = []
    for (let at = 0; at < values.length; at += 2) {
      const field = values[at] ?? ''
      if (field.startsWith(':')) records.push([field.slice(1), values[at + 1] ?? ''])
    }
    yield records
    cursor = next
  } while (cursor !== '0')
}
