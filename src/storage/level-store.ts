import type { Level as LevelDatabase } from 'level'
import type { Logger } from '../base/log.js'
import { openDatabase, openOrReplace } from './open-level.js'
import type { KeyRange, Store, StoreChange } from './store.js'

/** Options of a store on disk. */
export interface LevelStoreOptions {
  /** Its own directory, created if it does not exist. */
  readonly directory: string
  /** Name of its content in errors. Default: `the receipts`. */
  readonly holds?: string
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
}

/** LevelDB maps each open file of 2 MiB into memory. */
const maxOpenFiles = 32

type Database = LevelDatabase<string, string>

/**
 * Opens, or creates, a durable store. A damaged one is moved aside and replaced by an empty one.
 *
 * @throws {StartError} if another process has it open, or it cannot be opened
 */
export async function openLevelStore(options: LevelStoreOptions): Promise<Store> {
  const { directory, holds = 'the receipts', log, clock = Date.now } = options
  const database = await openOrReplace({ directory, holds, log, clock }, () => openStore(directory))
  return new LevelStore(directory, database)
}

const openStore = (directory: string): Promise<Database> => openDatabase(directory, { maxOpenFiles })

class LevelStore implements Store {
  readonly #directory: string
  #database: Database
  /** Whether a write has failed, and the database has to be opened again. */
  #failed = false
  #closed = false

  constructor(directory: string, database: Database) {
    this.#directory = directory
    this.#database = database
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#open()).get(key)
  }

  async range({ gte, lt }: KeyRange, limit: number): Promise<[string, string][]> {
    return (await this.#open()).iterator({ gte, lt, limit }).all()
  }

  async batch(changes: readonly StoreChange[]): Promise<void> {
    await this.#write(database => database.batch([...changes]))
  }

  async clear({ gte, lt }: KeyRange): Promise<void> {
    await this.#write(database => database.clear({ gte, lt }))
  }

  async #write(write: (database: Database) => Promise<void>): Promise<void> {
    const database = await this.#open()
    try {
      await write(database)
    } catch (error) {
      this.#failed = true
      throw error
    }
  }

  /**
   * After a failed write, as on a full disk, LevelDB's log may end with a partial record, and later
   * records may be unreadable: reopening the database begins a new log.
   */
  async #open(): Promise<Database> {
    if (this.#closed) throw new Error('the store is closed')
    if (this.#failed) {
      await this.#database.close()
      this.#database = await openStore(this.#directory)
      this.#failed = false
    }
    return this.#database
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#database.close()
  }
}
