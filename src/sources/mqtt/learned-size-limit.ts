import { GatewayError } from '../../base/errors.js'

/** How long a size is refused, or suspected, in milliseconds. */
const memory = 600_000

/**
 * Learns the size over which a broker ends connections: MQTT 3.1.1 has no way to announce it, and each such message would interrupt everybody's
 * publishing.
 *
 * A size is refused after two lost connections, each with a pending message larger than any that the broker accepted.
 */
export class LearnedSizeLimit {
  readonly #now: () => number
  /** The largest accepted size, in bytes. */
  #largest = 0
  /** The smallest size that did not, and when it expires. */
  #suspect = Number.POSITIVE_INFINITY
  #expiresAt = 0
  #isCertain = false

  /** @param now monotonic time in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** @throws {GatewayError} `body-too-large` */
  require(size: number): void {
    if (this.#isCertain && size >= this.#suspect && this.#now() < this.#expiresAt) throw this.#refusal()
  }

  /** Call when the broker has accepted a message. */
  passed(size: number): void {
    this.#largest = Math.max(this.#largest, size)
  }

  /**
   * Call when the broker has ended the connection and is reachable.
   *
   * @param size of the largest pending message
   * @returns the error for its publisher; `undefined` where its size cannot be the reason
   */
  lost(size: number): GatewayError | undefined {
    if (size <= this.#largest) return undefined
    const isAgain = this.#now() < this.#expiresAt
    this.#isCertain = isAgain
    this.#suspect = isAgain ? Math.min(this.#suspect, size) : size
    this.#expiresAt = this.#now() + memory
    if (isAgain) return this.#refusal()
    return new GatewayError('publish-timeout', {
      hint: 'the broker closed the connection; the message may be too large for it',
    })
  }

  #refusal(): GatewayError {
    return new GatewayError('body-too-large', {
      hint: `the broker closed connections for messages of ${this.#suspect} bytes`,
    })
  }
}
