import { close, constants, open, write } from 'node:fs'
import { promisify } from 'node:util'
import { codeOf } from './error-code.js'
import { ErrorLog } from './error-log.js'
import type { Logger } from './log.js'

const [openFile, closeFile, writeFile] = [promisify(open), promisify(close), promisify(write)]

/** Bytes of lines that wait for the disk, the ones that are being written included. */
const maxBytes = 1024 ** 2

/** Its owner writes, its group may read. */
const fileMode = 0o640

/** Milliseconds until a full pipe is tried again, and that `close` waits for the last lines. */
const [pipeInterval, closeTimeout] = [50, 1000]

const standardOutput = 1

export interface LineFileOptions {
  /** Its absolute path; `undefined` for standard output. */
  readonly path: string | undefined
  readonly log: Logger
  /** Called with the number of lines that were not written: the disk is full or too slow. */
  readonly onDropped: (lines: number) => void
}

/**
 * Appends lines to a file without waiting for the disk. One write is under way at a time, of all lines that wait; they may take 1 MiB, and lines beyond
 * that are dropped. Several processes may append to the same file (`O_APPEND`), and others may truncate it (`copytruncate` of logrotate).
 */
export class LineFile {
  readonly #options: LineFileOptions
  readonly #errors: ErrorLog
  #descriptor: number
  #waiting: string[] = []
  #bytes = 0
  /** Whether the last write ended within a line. */
  #isTorn = false
  #writing: Promise<void> | undefined
  #appending: Promise<void> | undefined
  #isClosed = false

  private constructor(options: LineFileOptions, descriptor: number) {
    this.#options = options
    this.#descriptor = descriptor
    this.#errors = new ErrorLog(options.log, 'Failed to write the access log')
  }

  /** Rejects if the file cannot be opened. */
  static async open(options: LineFileOptions): Promise<LineFile> {
    return new LineFile(options, await descriptorOf(options.path))
  }

  /** Appends a line. @param line without its end */
  write(line: string): void {
    const size = Buffer.byteLength(line) + 1
    if (this.#isClosed || this.#bytes + size > maxBytes) {
      this.#options.onDropped(1)
      return
    }
    this.#waiting.push(line)
    this.#bytes += size
    // Lines of one iteration of the event loop are one write.
    this.#writing ??= new Promise<void>(resolve => setImmediate(resolve)).then(() => this.#run())
  }

  /** Opens the file anew, after it was renamed. An error is logged, and the old file stays in use. */
  async reopen(): Promise<void> {
    const { path, log } = this.#options
    if (path === undefined || this.#isClosed) return
    try {
      const former = this.#descriptor
      this.#descriptor = await descriptorOf(path)
      this.#isTorn = false
      // The write that is under way has the former one.
      await this.#appending
      await closeFile(former)
    } catch (error) {
      log.error({ err: error, file: path }, 'Failed to open the access log again')
    }
  }

  /** Writes the waiting lines, for a second at most, and closes the file. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    const written = this.#writing?.then(() => true) ?? Promise.resolve(true)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>(resolve => {
      timer = setTimeout(resolve, closeTimeout, false)
    })
    const isWritten = await Promise.race([written, late])
    clearTimeout(timer)
    // A write that is still under way keeps it open.
    if (isWritten && this.#options.path !== undefined) await closeFile(this.#descriptor)
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting.splice(0)
      const start = this.#isTorn ? '\n' : ''
      const data = Buffer.from(`${start}${lines.join('\n')}\n`)
      this.#appending = this.#append(data)
      await this.#appending
      this.#bytes -= data.length - start.length
    }
    this.#writing = undefined
  }

  async #append(data: Buffer): Promise<void> {
    const descriptor = this.#descriptor
    let at = 0
    while (at < data.length) {
      try {
        const { bytesWritten } = await writeFile(descriptor, data, at)
        at += bytesWritten
      } catch (error) {
        if (codeOf(error) === 'EAGAIN' && !this.#isClosed) {
          await new Promise(resolve => setTimeout(resolve, pipeInterval))
          continue
        }
        this.#errors.write(error)
        this.#options.onDropped(data.subarray(at).filter(byte => byte === lineFeed).length)
        break
      }
    }
    const isWhole = at === 0 || data[at - 1] === lineFeed
    if (descriptor === this.#descriptor) this.#isTorn = at === 0 ? this.#isTorn : !isWhole
  }
}

const lineFeed = 10

function descriptorOf(path: string | undefined): Promise<number> {
  if (path === undefined) return Promise.resolve(standardOutput)
  const { O_APPEND, O_CREAT, O_WRONLY } = constants
  return openFile(path, O_APPEND | O_CREAT | O_WRONLY, fileMode)
}
