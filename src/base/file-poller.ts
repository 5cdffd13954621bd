import { stat } from 'node:fs/promises'

export interface FilePollerOptions {
  readonly paths: readonly string[]
  /** Reads the files again, after a change or `reload`. Must not reject. */
  readonly load: () => Promise<void>
  /** Called after a poll without a change. */
  readonly onUnchanged?: () => void
  /** Poll interval, in milliseconds. Default: 2 s. */
  readonly interval?: number | undefined
}

const defaultInterval = 2000

/**
 * Polls files for changes. Unlike `fs.watch`, polling follows renames and symbolic links, however certbot, Kubernetes or an editor replace
 * files, and works on file systems without notifications.
 */
export class FilePoller {
  readonly #options: FilePollerOptions
  /** Stamps of the files at the last load, and at the last poll. */
  #loaded: string
  #polled: string
  #timer: NodeJS.Timeout | undefined
  #working: Promise<void> = Promise.resolve()
  #closed = false

  /** @param stamp of the files before they were first read (`stampOf`) */
  constructor(options: FilePollerOptions, stamp: string) {
    this.#options = options
    this.#loaded = stamp
    this.#polled = stamp
    this.#schedulePoll()
  }

  /** Loads them now, whether changed or not. Never rejects. */
  reload(): Promise<void> {
    return this.#enqueue(async () => {
      this.#polled = await stampOf(this.#options.paths)
      await this.#load()
    })
  }

  /** Stops polling; resolves when no read is in progress. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#working
  }

  /** Runs one task at a time, in order. */
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

  /** Loads after two polls with the same change: a program may still be writing. */
  async #poll(): Promise<void> {
    const stamp = await stampOf(this.#options.paths)
    const settled = stamp === this.#polled
    this.#polled = stamp
    if (settled && stamp !== this.#loaded) await this.#load()
    else this.#options.onUnchanged?.()
  }

  #load(): Promise<void> {
    this.#loaded = this.#polled
    return this.#options.load()
  }
}

/** Returns a text that changes when one of the files is replaced, written, created or removed. */
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
