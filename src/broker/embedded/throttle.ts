import type { Peer } from '../broker.js'

/** Publish rate limit of one connection. */
export interface RateLimit {
  /** Maximum packets of one batch, so that later ones do not wait long. */
  readonly batchSize: number
  /** Counts messages, and their bytes; returns a pause in reading, in milliseconds. */
  spend(messages: number, bytes: number): number
}

/**
 * Creates the rate limit of one connection.
 *
 * @param isNamed whether its client has a user by now
 */
export type CreateRateLimit = (peer: Peer, isNamed: () => boolean) => RateLimit | undefined

/** Pauses reading from a connection that publishes too fast. */
export class Throttle {
  readonly #rateLimit: RateLimit
  readonly #onThrottled: () => void
  readonly #resume: () => void
  #timer: NodeJS.Timeout | undefined
  /** Bytes since the last counted message. */
  #bytes = 0

  /**
   * @param onThrottled called for each pause
   * @param resume called when the pause is over
   */
  constructor(pace: RateLimit, onThrottled: () => void, resume: () => void) {
    this.#rateLimit = pace
    this.#onThrottled = onThrottled
    this.#resume = resume
  }

  get isPaused(): boolean {
    return this.#timer !== undefined
  }

  spend(messages: number, bytes: number): void {
    this.#bytes += bytes
    if (messages === 0) return
    const delay = this.#rateLimit.spend(messages, this.#bytes)
    this.#bytes = 0
    if (delay <= 0) return
    this.#onThrottled()
    this.#timer = setTimeout(() => this.stop(), delay)
  }

  stop(): void {
    if (!this.#timer) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#resume()
  }
}
