import { readFile, stat } from 'node:fs/promises'
import { FilePoller, stampOf } from '../base/file-poller.js'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'

export interface WatchedFileOptions<T> {
  readonly path: string
  /** What it is called in the log and in errors: `the password file`. */
  readonly what: string
  /** Makes something of its content; throws an `Error` that says what is wrong and where. */
  readonly parse: (content: Buffer) => T
  /** Called when it was read again. */
  readonly onChanged?: () => void
  readonly log: Logger
  /** How often it is looked at, in milliseconds. Default: 2 s. */
  readonly pollInterval?: number
}

/** Beyond, it is some other file. */
const maxSize = 16 * 1024 * 1024

/** A file that is read again when it changes. What cannot be read or parsed is logged, and what was there before stays. */
export class WatchedFile<T> {
  readonly #options: WatchedFileOptions<T>
  readonly #poller: FilePoller
  #current: T

  private constructor(options: WatchedFileOptions<T>, current: T, stamp: string) {
    const { path, pollInterval } = options
    this.#options = options
    this.#current = current
    this.#poller = new FilePoller({ paths: [path], load: () => this.#load(), interval: pollInterval }, stamp)
  }

  /**
   * Reads the file and begins to watch it.
   *
   * @throws {StartError} naming the file and the reason
   */
  static async start<T>(options: WatchedFileOptions<T>): Promise<WatchedFile<T>> {
    const stamp = await stampOf([options.path])
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
    return this.#poller.reload()
  }

  /** Stops watching; resolves when nothing is being read any more. Idempotent. */
  close(): Promise<void> {
    return this.#poller.close()
  }

  async #load(): Promise<void> {
    const { path, what, onChanged, log } = this.#options
    try {
      this.#current = await load(this.#options)
    } catch (error) {
      log.error({ file: path }, `${what} was refused, what it said before stays: ${reasonOf(error)}`)
      return
    }
    log.info({ file: path }, `${what} was read again`)
    onChanged?.()
  }
}

async function load<T>({ path, parse }: WatchedFileOptions<T>): Promise<T> {
  const { size } = await stat(path)
  if (size > maxSize) throw new Error(`has ${size} bytes; ${maxSize} are the most`)
  return parse(await readFile(path))
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
