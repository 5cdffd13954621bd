import type { Logger } from '../../base/log.js'
import { TakenOver } from '../../mqtt/broker-responses.js'
import { stableTime } from '../../mqtt/reconnecting-connection.js'

/** Minimum interval between log lines, in milliseconds. */
const logInterval = 300_000
/** Short connections in a row that indicate another client. */
const maxBrief = 4

export interface TakeoverDetectorOptions {
  readonly clientId: string
  readonly log: Pick<Logger, 'error'>
  /** Monotonic time in milliseconds. Default: the machine's. */
  readonly now?: () => number
}

/**
 * Detects another client with the session's client id, whose connects take over the session: two gateways with one
 * `push.clientId`, or two sets of gateways that share a journal, share its messages, and neither gets all.
 */
export class TakeoverDetector {
  readonly #options: TakeoverDetectorOptions
  #brief = 0
  #loggedAt = Number.NEGATIVE_INFINITY

  constructor(options: TakeoverDetectorOptions) {
    this.#options = options
  }

  /**
   * Call when a connection has ended, or an attempt failed.
   *
   * @param lasted duration of the connection in milliseconds; `undefined` for a failed attempt
   */
  ended(reason: unknown, lasted: number | undefined): void {
    this.#brief = lasted !== undefined && lasted < stableTime ? this.#brief + 1 : 0
    const { clientId } = this.#options
    const remedy = `give each gateway, or each set of gateways with one journal in Redis, a push.clientId of its own; this one's is ${clientId}`
    if (reason instanceof TakenOver) this.#log(`another client took over push's client id at the broker: ${remedy}`)
    // MQTT 3.1.1 gives no reason for the end of a connection.
    else if (this.#brief >= maxBrief) {
      this.#log(
        `the broker closes push's connections soon after they open; if another gateway has the same client id: ${remedy}`,
      )
    }
  }

  #log(text: string): void {
    const { log, now = () => performance.now() } = this.#options
    if (now() - this.#loggedAt < logInterval) return
    this.#loggedAt = now()
    log.error(text)
  }
}
