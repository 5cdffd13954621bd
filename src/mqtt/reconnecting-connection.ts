import { setTimeout as delay } from 'node:timers/promises'
import { backoff } from './backoff.js'
import type { Connection } from './connection.js'

/** How long a close waits for an attempt to connect, in milliseconds. */
const closeTimeout = 500

/** A connection that lasted so long was no mere attempt, in milliseconds. */
export const steady = 10_000

/** What a link needs of time. */
export interface ReconnectClock {
  /** In milliseconds, since any moment. */
  now(): number
  /** Resolves, or rejects, at once when `signal` is aborted. */
  wait(milliseconds: number, signal: AbortSignal): Promise<void>
}

/** What a link needs. */
export interface ReconnectingConnectionOptions {
  /** Makes a connection that is ready for use. */
  readonly connect: () => Promise<Connection>
  /** Called when it is there. */
  readonly onUp: (connection: Connection) => void
  /** Called when it is not: after a loss, with how many milliseconds it lasted, and after each attempt that failed. */
  readonly onDown: (reason: unknown, lasted?: number) => void
  /** The machine's when left out. */
  readonly clock?: ReconnectClock
}

const machineClock: ReconnectClock = {
  now: () => performance.now(),
  wait: (milliseconds, signal) => delay(milliseconds, undefined, { signal }),
}

/** Keeps one connection, over and over again, until it is closed. */
export class ReconnectingConnection {
  readonly #options: ReconnectingConnectionOptions
  readonly #closing = new AbortController()
  #connection: Connection | undefined
  readonly #running: Promise<void>

  constructor(options: ReconnectingConnectionOptions) {
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
    const { connect, onDown, clock = machineClock } = this.#options
    let attempts = 0
    while (!signal.aborted) {
      let since: number | undefined
      try {
        const connection = await connect()
        since = clock.now()
        if (signal.aborted) await connection.end()
        else await this.#hold(connection)
      } catch (error) {
        const lasted = since === undefined ? undefined : clock.now() - since
        // A connection that was soon lost is one more attempt: it may be one that the broker ends each time.
        if (lasted !== undefined && lasted >= steady) attempts = 0
        if (!signal.aborted) onDown(error, lasted)
      }
      await clock.wait(backoff(++attempts, Math.random()), signal).catch(() => {})
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
