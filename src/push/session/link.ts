import { setTimeout as delay } from 'node:timers/promises'
import { backoff } from './backoff.js'
import type { Connection } from './connection.js'

/** How long a close waits for an attempt to connect, in milliseconds. */
const closeTimeout = 500

/** What a link needs. */
export interface LinkOptions {
  /** Makes a connection that is ready for use. */
  readonly connect: () => Promise<Connection>
  /** Called when it is there. */
  readonly onUp: (connection: Connection) => void
  /** Called when it is not: after a loss, and after each attempt that failed. */
  readonly onDown: (reason: unknown) => void
}

/** Keeps one connection, over and over again, until it is closed. */
export class Link {
  readonly #options: LinkOptions
  readonly #closing = new AbortController()
  #connection: Connection | undefined
  readonly #running: Promise<void>

  constructor(options: LinkOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  /** The connection, while it is there. */
  get connection(): Connection | undefined {
    return this.#connection
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#connection?.end()
    // An attempt that is under way ends by itself, or with the broker.
    await Promise.race([this.#running, delay(closeTimeout, undefined, { ref: false })])
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    let attempts = 0
    while (!signal.aborted) {
      try {
        const connection = await this.#options.connect()
        attempts = 0
        if (signal.aborted) await connection.end()
        else await this.#hold(connection)
      } catch (error) {
        if (!signal.aborted) this.#options.onDown(error)
      }
      // A connection that was lost counts as an attempt: it may be one that the broker ends each time.
      await delay(backoff(++attempts, Math.random()), undefined, { signal }).catch(() => {})
    }
  }

  async #hold(connection: Connection): Promise<void> {
    this.#connection = connection
    const lost = new Promise<never>((_, reject) => connection.onClosed(reject))
    try {
      this.#options.onUp(connection)
      await lost
    } finally {
      this.#connection = undefined
    }
  }
}
