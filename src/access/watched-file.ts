import { readFile, stat } from 'node:fs/promises'
import { FilePoller, stampOf } from '../base/file-poller.js'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'

export interface WatchedFileOptions<T> {
  readonly path: string
  /** Its name in logs and errors: `the password file`. */
  readonly what: string
  /** Parses its content; throws an `Error` that names the problem and its place. */
  readonly parse: (content: Buffer) => T
  /** Called after it was read again. */
  readonly onChanged?: () => void
  readonly log: Logger
  /** Interval of checks for changes, in milliseconds. Default: 2 s. */
  readonly pollInterval?: number
}

/** In bytes. */
const maxSize = 16 * 1024 * 1024

/** A file that is read again when it changes. Logs an invalid one, and keeps its last content. */
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
   * Reads the file, and starts watching it.
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

  /** Its last valid content. */
  get current(): T {
    return this.#current
  }

  /** Reads it now, whether changed or not. Never rejects. */
  reload(): Promise<void> {
    return this.#poller.reload()
  }

  /** Stops watching; resolves when no read is in progress. Idempotent. */
  close(): Promise<void> {
    return this.#poller.close()
  }

  async #load(): Promise<void> {
    const { path, what, onChanged, log } = this.#options
    try {
      this.#current = await load(this.#options)
    } catch (error) {
      log.error({ file: path }, `failed to reload ${what}, keeping its last content: ${reasonOf(error)}`)
      return
    }
    log.info({ file: path }, `reloaded ${what}`)
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
