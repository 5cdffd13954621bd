import { setTimeout as delay } from 'node:timers/promises'
import type { Connection } from './connection.js'

/** How long `close` waits for an attempt to connect, in milliseconds. */
const closeTimeout = 500

/** A connection that lasted this long resets the backoff, in milliseconds. */
export const stableTime = 10_000

/** A clock with abortable timeouts. */
export interface ReconnectClock {
  /** Milliseconds since any moment. */
  now(): number
  /** Resolves after `milliseconds`; settles at once if `signal` is aborted. */
  wait(milliseconds: number, signal: AbortSignal): Promise<void>
}

export interface ReconnectingConnectionOptions {
  /** Opens a connection. */
  readonly connect: () => Promise<Connection>
  /** Called when it is open. */
  readonly onUp: (connection: Connection) => void
  /** Called after a loss, with the lifetime of the connection in milliseconds, and after each failed attempt. */
  readonly onDown: (reason: unknown, lasted?: number) => void
  /** Default: the machine's. */
  readonly clock?: ReconnectClock
}

const systemClock: ReconnectClock = {
  now: () => performance.now(),
  wait: (milliseconds, signal) => delay(milliseconds, undefined, { signal }),
}

/** Keeps a connection open, and reconnects with backoff, until `close`. */
export class ReconnectingConnection {
  readonly #options: ReconnectingConnectionOptions
  readonly #closing = new AbortController()
  #connection: Connection | undefined
  readonly #running: Promise<void>

  constructor(options: ReconnectingConnectionOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  /** The connection, while it is open. */
  get connection(): Connection | undefined {
    return this.#connection
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#connection?.end()
    // A pending attempt ends by itself, or with the broker.
    await Promise.race([this.#running, delay(closeTimeout, undefined, { ref: false })])
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    const { connect, onDown, clock = systemClock } = this.#options
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
        // A connection that was lost soon counts as a failed attempt: the broker may close each.
        if (lasted !== undefined && lasted >= stableTime) attempts = 0
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

/** Delays between attempts, in milliseconds. */
const [firstDelay, secondDelay, maxDelay] = [200, 1000, 30_000]

/**
 * Exponential backoff with jitter: the first retry follows soon, because most lost brokers are being restarted; then after 1 s, doubled
 * up to 30 s.
 *
 * @param attempts consecutive failures; at least 1
 * @param random 0 to 1; reduces the delay by up to a half
 * @returns milliseconds
 */
export function backoff(attempts: number, random: number): number {
  const delay = attempts === 1 ? firstDelay : Math.min(secondDelay * 2 ** (attempts - 2), maxDelay)
  return delay * (1 - random / 2)
}
