import { mkdir } from 'node:fs/promises'
import type { Level as LevelDatabase } from 'level'
import { codeOf } from '../base/error-code.js'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { isDamage, moveAside } from '../journal/level-database.js'
import type { KeyRange, ReceiptStore, StoreChange } from './store.js'

/** What a store on disk needs. */
export interface LevelReceiptStoreOptions {
  /** Its own directory, made if it is not there. */
  readonly directory: string
  /** What it holds, in the plural, as a person is told; `receipts` when left out. */
  readonly holds?: string
  readonly log: Logger
  /** Milliseconds since 1970. */
  readonly clock?: () => number
}

/** LevelDB maps each open file of 2 MiB into memory. */
const maxOpenFiles = 32

type Database = LevelDatabase<string, string>

/**
 * Opens, or makes, a store that outlives the process. One that is damaged is moved aside, and a new one made.
 *
 * @throws {StartError} where another process has it open, or it cannot be made
 */
export async function openLevelReceiptStore(options: LevelReceiptStoreOptions): Promise<ReceiptStore> {
  const { directory, holds = 'receipts', log, clock = Date.now } = options
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    try {
      return new LevelReceiptStore(directory, await openDatabase(directory))
    } catch (error) {
      if (!isDamage(error)) throw error
      const aside = await moveAside({ directory, clock })
      log.error({ err: error }, `the ${holds} in ${directory} are damaged and were moved to ${aside}; new ones begin`)
      return new LevelReceiptStore(directory, await openDatabase(directory))
    }
  } catch (error) {
    throw startError(directory, holds, error)
  }
}

async function openDatabase(directory: string): Promise<Database> {
  const { Level } = await import('level')
  const database: Database = new Level<string, string>(directory, { maxOpenFiles })
  await database.open()
  return database
}

class LevelReceiptStore implements ReceiptStore {
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
   * After a write has failed, for want of space or worse, LevelDB's log has part of a record at its end, and what is
   * written after that may not be read again: opening it anew begins a new log.
   */
  async #open(): Promise<Database> {
    if (this.#closed) throw new Error('the store is closed')
    if (this.#failed) {
      await this.#database.close()
      this.#database = await openDatabase(this.#directory)
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

function startError(directory: string, holds: string, error: unknown): StartError {
  const reason = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const message = reason instanceof Error ? reason.message : String(reason)
  const text =
    codeOf(reason) === 'LEVEL_LOCKED'
      ? `Another mqway has the ${holds} in ${directory} open: end it, or give this one a directory of its own with --data DIR`
      : `Cannot keep the ${holds} in ${directory} (${message}): choose another directory with --data DIR, or --data none`
  return new StartError(text, { cause: error })
}
