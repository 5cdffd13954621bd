/** How fast one connection may publish. */
export interface Pace {
  /** So many packets are looked at in one go, at most: what comes behind them is heard soon enough. */
  readonly portion: number
  /** Notes `amount` more messages; returns for how many milliseconds nothing more is to be read. */
  spend(amount: number): number
}

/** Makes one connection wait when it publishes too fast: it is not read for a while, and nothing is lost. */
export class Throttle {
  readonly #pace: Pace
  readonly #onDelay: () => void
  readonly #resume: () => void
  #timer: NodeJS.Timeout | undefined

  /**
   * @param onDelay called for each pause
   * @param resume called when the pause is over
   */
  constructor(pace: Pace, onDelay: () => void, resume: () => void) {
    this.#pace = pace
    this.#onDelay = onDelay
    this.#resume = resume
  }

  /** Whether nothing is to be read now. */
  get pausing(): boolean {
    return this.#timer !== undefined
  }

  /** Call with how many messages were read. */
  spend(messages: number): void {
    const delay = messages === 0 ? 0 : this.#pace.spend(messages)
    if (delay <= 0) return
    this.#onDelay()
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
