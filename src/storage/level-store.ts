import type { Logger } from '../base/log.js'
import { openDatabase, openOrReplace } from './open-level.js'
import { RecoveringLevel } from './recovering-level.js'
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

/**
 * Opens, or creates, a durable store. A damaged one is moved aside and replaced by an empty one.
 *
 * @throws {StartError} if another process has it open, or it cannot be opened
 */
export async function openLevelStore(options: LevelStoreOptions): Promise<Store> {
  const { directory, holds = 'the receipts', log, clock = Date.now } = options
  const open = () => openDatabase(directory, { maxOpenFiles })
  const database = await openOrReplace({ directory, holds, log, clock }, open)
  return new LevelStore(new RecoveringLevel(database, { directory, holds }, log))
}

class LevelStore implements Store {
  readonly #database: RecoveringLevel

  constructor(database: RecoveringLevel) {
    this.#database = database
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#database.reading()).get(key)
  }

  async range({ gte, lt }: KeyRange, limit: number): Promise<[string, string][]> {
    return (await this.#database.reading()).iterator({ gte, lt, limit }).all()
  }

  batch(changes: readonly StoreChange[]): Promise<void> {
    return this.#database.write(database => database.batch([...changes]))
  }

  clear({ gte, lt }: KeyRange): Promise<void> {
    return this.#database.write(database => database.clear({ gte, lt }))
  }

  close(): Promise<void> {
    return this.#database.close()
  }
}
