import { readFile, stat } from 'node:fs/promises'
import type { Logger } from '../log.js'
import { StartError } from '../start-error.js'

export interface WatchedFileOptions<T> {
  readonly path: string
  /** What it is called in the log and in errors: `the password file`. */
  readonly what: string
  /** Makes something of its content; throws an `Error` that says what is wrong and where. */
  readonly parse: (content: Buffer) => T
  readonly log: Logger
  /** How often it is looked at, in milliseconds. Default: 2 s. */
  readonly pollInterval?: number
}

const defaultPollInterval = 2000

/** Beyond, it is some other file. */
const maxSize = 16 * 1024 * 1024

/**
 * A file that is read again when it changes. What cannot be read or parsed is logged, and what was there before stays.
 *
 * It is polled: a poll follows renames and symbolic links, and works on file systems without notifications.
 */
export class WatchedFile<T> {
  readonly #options: WatchedFileOptions<T>
  #current: T
  /** What the file looked like when it was last read, and when it was last looked at. */
  #loaded: string
  #seen: string
  #timer: NodeJS.Timeout | undefined
  #working: Promise<void> = Promise.resolve()
  #closed = false

  private constructor(options: WatchedFileOptions<T>, current: T, stamp: string) {
    this.#options = options
    this.#current = current
    this.#loaded = stamp
    this.#seen = stamp
    this.#schedulePoll()
  }

  /**
   * Reads the file and begins to watch it.
   *
   * @throws {StartError} naming the file and the reason
   */
  static async start<T>(options: WatchedFileOptions<T>): Promise<WatchedFile<T>> {
    const stamp = await stampOf(options.path)
    try {
      return new WatchedFile(options, await load(options), stamp)
    } catch (error) {
      throw new StartError(`${options.what} ${options.path}: ${reasonOf(error)}`, { cause: error })
    }
  }

  /** What was last made of it. */
  get current(): T {
    return this.#current
  }

  /** Reads it now, changed or not. Never rejects. */
  reload(): Promise<void> {
    return this.#enqueue(async () => {
      this.#seen = await stampOf(this.#options.path)
      await this.#load()
    })
  }

  /** Stops watching; resolves when nothing is being read any more. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#working
  }

  /** One read at a time, in order. */
  #enqueue(work: () => Promise<void>): Promise<void> {
    this.#working = this.#working.then(async () => {
      if (!this.#closed) await work()
    })
    return this.#working
  }

  #schedulePoll(): void {
    this.#timer = setTimeout(async () => {
      await this.#enqueue(() => this.#poll())
      if (!this.#closed) this.#schedulePoll()
    }, this.#options.pollInterval ?? defaultPollInterval)
    this.#timer.unref()
  }

  /** Reads it once two looks in a row saw the same new file: an editor may be in the middle of writing. */
  async #poll(): Promise<void> {
    const stamp = await stampOf(this.#options.path)
    const settled = stamp === this.#seen
    this.#seen = stamp
    if (settled && stamp !== this.#loaded) await this.#load()
  }

  async #load(): Promise<void> {
    const { path, what, log } = this.#options
    this.#loaded = this.#seen
    try {
      this.#current = await load(this.#options)
      log.info({ file: path }, `${what} was read again`)
    } catch (error) {
      log.error({ file: path }, `${what} was refused, what it said before stays: ${reasonOf(error)}`)
    }
  }
}

async function load<T>({ path, parse }: WatchedFileOptions<T>): Promise<T> {
  const { size } = await stat(path)
  if (size > maxSize) throw new Error(`has ${size} bytes; ${maxSize} are the most`)
  return parse(await readFile(path))
}

/** What changes whenever the file is replaced or written; where there is none, that there is none. */
async function stampOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join('-')
  } catch {
    return 'missing'
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
