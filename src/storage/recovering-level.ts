import { readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Level } from 'level'
import type { Logger } from '../base/log.js'
import type { DatabaseLocation } from './open-level.js'

/** Delay before a failed database is opened again, at first and at most, in milliseconds. */
const [firstDelay, maxDelay] = [1000, 5000]

/** Bytes that opening writes besides the content of the log. */
const openingBytes = 1024 ** 2

const probeName = 'space.tmp'

/**
 * A LevelDB database that is opened again after a failed write, such as on a full disk. LevelDB's log then ends with part of a record, and
 * later records, although written, may be unreadable after a restart; opening the database begins a new log.
 *
 * Until then, writes are refused, and reads go on. They are refused, too, if the database has been closed and cannot be opened.
 */
export class RecoveringLevel<K = string, V = string> {
  readonly #database: Level<K, V>
  readonly #place: DatabaseLocation
  readonly #log: Logger
  #failure: unknown
  #recovery: Promise<void> | undefined
  /** While the database is closed and opened. */
  #reopening: Promise<void> | undefined
  #endWait: () => void = () => {}
  #closed = false

  constructor(database: Level<K, V>, place: DatabaseLocation, log: Logger) {
    this.#database = database
    this.#place = place
    this.#log = log
  }

  /** Why writes are refused; `undefined` while they are not. */
  get failure(): string | undefined {
    if (this.#failure === undefined) return undefined
    return this.#failure instanceof Error ? this.#failure.message : String(this.#failure)
  }

  /** The database, for reading. @throws {Error} rejects when it is closed */
  async reading(): Promise<Level<K, V>> {
    if (this.#closed) throw new Error('the database is closed')
    if (this.#reopening) await this.#reopening.catch(() => {})
    return this.#database
  }

  /** Runs a write. @throws {Error} rejects with LevelDB's error, also for later writes until the database is open again */
  async write(write: (database: Level<K, V>) => Promise<void>): Promise<void> {
    if (this.#closed) throw new Error('the database is closed')
    if (this.#failure !== undefined) throw this.#failure
    try {
      await write(this.#database)
    } catch (error) {
      this.#fail(error)
      throw error
    }
    // It may be behind the part of a record that a write beside it has left, and unreadable after a restart.
    if (this.#failure !== undefined) throw this.#failure
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#endWait()
    await this.#recovery
    await this.#database.close()
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined || this.#closed) return
    this.#failure = error
    this.#log.error({ err: error }, `failed to write ${this.#place.holds}: refusing changes until they can be written`)
    this.#recovery = this.#recover()
  }

  async #recover(): Promise<void> {
    const { holds } = this.#place
    for (let delay = firstDelay; ; delay = Math.min(delay * 2, maxDelay)) {
      await this.#wait(delay)
      if (this.#closed) return
      try {
        await this.#probeSpace()
        this.#reopening = this.#reopen()
        await this.#reopening
        this.#failure = undefined
        this.#log.info(`${holds} can be written again`)
        return
      } catch (error) {
        this.#log.debug({ err: error }, `${holds} cannot be written yet`)
      } finally {
        this.#reopening = undefined
      }
    }
  }

  /** Writes as many bytes as opening the database would: one that cannot be opened again could not be read, either. */
  async #probeSpace(): Promise<void> {
    const { directory } = this.#place
    const logs = (await readdir(directory)).filter(name => name.endsWith('.log'))
    const sizes = await Promise.all(logs.map(async name => (await stat(join(directory, name))).size))
    const file = join(directory, probeName)
    try {
      await writeFile(file, Buffer.alloc(sizes.reduce((sum, size) => sum + size, openingBytes)))
    } finally {
      await rm(file, { force: true })
    }
  }

  async #reopen(): Promise<void> {
    await this.#database.close()
    await this.#database.open()
  }

  #wait(delay: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, delay)
      this.#endWait = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
