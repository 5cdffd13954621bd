import { GatewayError } from '../../base/errors.js'

/** For how long a size is refused, and suspected, in milliseconds. */
const memory = 600_000

/**
 * Finds out that a broker ends connections for messages over a size that it does not tell: MQTT 3.1.1 has no way to, and
 * each such message would take publishing from everybody until there is a connection again.
 *
 * It is taken for so where a connection was lost twice, each time with a message on its way that was larger than any that
 * ever came through. Then what is as large is refused.
 */
export class LearnedSizeLimit {
  readonly #now: () => number
  /** The largest that came through, in bytes. */
  #largest = 0
  /** The smallest that did not, and until when that is thought of. */
  #suspect = Number.POSITIVE_INFINITY
  #until = 0
  #isCertain = false

  /** @param now milliseconds, since any moment */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** @throws {Ending} `body-too-large` */
  require(size: number): void {
    if (this.#isCertain && size >= this.#suspect && this.#now() < this.#until) throw this.#refusal()
  }

  /** Call when a message has come through. */
  passed(size: number): void {
    this.#largest = Math.max(this.#largest, size)
  }

  /**
   * Call when the broker, which is there, has ended the connection.
   *
   * @param size of the largest message that was on its way, and has not come through
   * @returns what to answer to whoever published it; `undefined` where it can hardly have been the reason
   */
  lost(size: number): GatewayError | undefined {
    if (size <= this.#largest) return undefined
    const isAgain = this.#now() < this.#until
    this.#isCertain = isAgain
    this.#suspect = isAgain ? Math.min(this.#suspect, size) : size
    this.#until = this.#now() + memory
    if (isAgain) return this.#refusal()
    return new GatewayError('publish-timeout', {
      hint: 'the broker ended the connection; perhaps it is too large for it',
    })
  }

  #refusal(): GatewayError {
    return new GatewayError('body-too-large', {
      hint: `the broker has ended connections for messages of ${this.#suspect} bytes`,
    })
  }
}
