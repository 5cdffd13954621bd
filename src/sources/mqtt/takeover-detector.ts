import type { Logger } from '../../base/log.js'
import { TakenOver } from '../../mqtt/broker-responses.js'
import { steady } from '../../mqtt/reconnecting-connection.js'

/** How often the log says it, at most; in milliseconds. */
const interval = 300_000
/** So many connections that ended soon, one after the other, are no chance. */
const tooMany = 4

/** What it takes to find out about rivals. */
export interface TakeoverDetectorOptions {
  readonly clientId: string
  readonly log: Pick<Logger, 'error'>
  /** In milliseconds, since any moment; the machine's when left out. */
  readonly now?: () => number
}

/**
 * Finds out that somebody else connects with the session's client id, for whom the broker ends the session each time: two
 * gateways with one `push.clientId` share its messages, and neither gets all.
 */
export class TakeoverDetector {
  readonly #options: TakeoverDetectorOptions
  /** Connections in a row that ended soon. */
  #brief = 0
  #told = Number.NEGATIVE_INFINITY

  constructor(options: TakeoverDetectorOptions) {
    this.#options = options
  }

  /**
   * Call when a connection has ended, or could not be made.
   *
   * @param lasted in milliseconds; `undefined` for one that could not be made: the broker is away, and that is another
   *   matter
   */
  ended(reason: unknown, lasted: number | undefined): void {
    this.#brief = lasted !== undefined && lasted < steady ? this.#brief + 1 : 0
    const { clientId } = this.#options
    const remedy = `give each gateway a push.clientId of its own; this one's is ${clientId}`
    if (reason instanceof TakenOver) this.#tell(`somebody else has taken push's place at the broker: ${remedy}`)
    // MQTT 3.1.1 does not say why a connection ends.
    else if (this.#brief >= tooMany) {
      this.#tell(
        `the broker ends push's connections soon after they began; if another gateway takes its place: ${remedy}`,
      )
    }
  }

  #tell(text: string): void {
    const { log, now = () => performance.now() } = this.#options
    if (now() - this.#told < interval) return
    this.#told = now()
    log.error(text)
  }
}
