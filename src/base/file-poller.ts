import { stat } from 'node:fs/promises'

export interface FilePollerOptions {
  readonly paths: readonly string[]
  /** Reads the files again, because they changed or because `reload` was called. Must not reject. */
  readonly load: () => Promise<void>
  /** Called when they were looked at and nothing had changed. */
  readonly onUnchanged?: () => void
  /** How often they are looked at, in milliseconds. Default: 2 s. */
  readonly interval?: number | undefined
}

const defaultInterval = 2000

/**
 * Sees when files change.
 *
 * They are polled: a poll follows renames and symbolic links, however certbot, Kubernetes or an editor replace them, and
 * works on file systems without notifications, all of which watching gets wrong somewhere. A `stat` call every two
 * seconds is no cost.
 */
export class FilePoller {
  readonly #options: FilePollerOptions
  /** What the files looked like when they were last loaded, and when they were last looked at. */
  #loaded: string
  #seen: string
  #timer: NodeJS.Timeout | undefined
  #working: Promise<void> = Promise.resolve()
  #closed = false

  /** @param stamp what the files looked like before they were read first: see `stampOf` */
  constructor(options: FilePollerOptions, stamp: string) {
    this.#options = options
    this.#loaded = stamp
    this.#seen = stamp
    this.#schedulePoll()
  }

  /** Loads them now, changed or not. Never rejects. */
  reload(): Promise<void> {
    return this.#enqueue(async () => {
      this.#seen = await stampOf(this.#options.paths)
      await this.#load()
    })
  }

  /** Stops looking; resolves when nothing is being read any more. Idempotent. */
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
    }, this.#options.interval ?? defaultInterval)
    this.#timer.unref()
  }

  /** Loads once two looks in a row saw the same new files: an editor may be in the middle of writing one. */
  async #poll(): Promise<void> {
    const stamp = await stampOf(this.#options.paths)
    const settled = stamp === this.#seen
    this.#seen = stamp
    if (settled && stamp !== this.#loaded) await this.#load()
    else this.#options.onUnchanged?.()
  }

  #load(): Promise<void> {
    this.#loaded = this.#seen
    return this.#options.load()
  }
}

/** What changes whenever one of the files is replaced or written; of a file that is not there, that it is not. */
export async function stampOf(paths: readonly string[]): Promise<string> {
  const stamps = paths.map(async path => {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
      return [dev, ino, size, mtimeNs, ctimeNs].join('-')
    } catch {
      return 'missing'
    }
  })
  return (await Promise.all(stamps)).join(' ')
}
