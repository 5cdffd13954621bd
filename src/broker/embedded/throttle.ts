import type { Peer } from '../broker.js'

/** How fast one connection may publish. */
export interface RateLimit {
  /** So many packets are looked at in one go, at most: what comes behind them is heard soon enough. */
  readonly batchSize: number
  /** Notes more messages, and bytes that came with them; returns for how many milliseconds nothing more is to be read. */
  spend(messages: number, bytes: number): number
}

/**
 * Makes the pace of one connection.
 *
 * @param isNamed tells whether its client has shown to have a user name by now
 */
export type CreateRateLimit = (peer: Peer, isNamed: () => boolean) => RateLimit | undefined

/** Makes one connection wait when it publishes too fast: it is not read for a while, and nothing is lost. */
export class Throttle {
  readonly #rateLimit: RateLimit
  readonly #onThrottled: () => void
  readonly #resume: () => void
  #timer: NodeJS.Timeout | undefined
  /** Bytes that came since the last message was counted. */
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

  /** Whether nothing is to be read now. */
  get isPaused(): boolean {
    return this.#timer !== undefined
  }

  /** Call with how many messages, and bytes, were read. */
  spend(messages: number, bytes: number): void {
    this.#bytes += bytes
    if (messages === 0) return
    const delay = this.#rateLimit.spend(messages, this.#bytes)
    this.#bytes = 0
    if (delay <= 0) return
    this.#onThrottled()
    this.#timer = setTimeout(() => this.stop(), delay)
  }

  /** Ends the pause. */
  stop(): void {
    if (!this.#timer) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#resume()
  }
}
