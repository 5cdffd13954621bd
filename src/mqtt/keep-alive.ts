/** What a keep-alive does. */
export interface KeepAliveActions {
  /** Sends PINGREQ. */
  ping(): void
  /** Called when nothing came for a whole keep-alive interval, and no answer to a ping either. */
  lost(): void
}

/**
 * Keeps one connection known to be alive: half an interval without anything sent asks for a PINGREQ, so that the broker
 * hears something in time [MQTT-3.1.2-23]; and a broker that does not answer is lost.
 */
export class KeepAlive {
  readonly #actions: KeepAliveActions
  #interval: number
  #timer: NodeJS.Timeout | undefined
  #sent = false
  #received = false
  #asked = false
  /** While nothing is read, an answer cannot be seen. */
  paused = false

  /** @param interval in seconds; 0 for none */
  constructor(interval: number, actions: KeepAliveActions) {
    this.#interval = interval
    this.#actions = actions
  }

  /** @param interval in seconds, where it is not what was asked for */
  start(interval = this.#interval): void {
    this.#interval = interval
    if (this.#interval > 0) this.#timer = setInterval(() => this.#look(), (this.#interval * 1000) / 2)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  sent(): void {
    this.#sent = true
  }

  received(): void {
    this.#received = true
  }

  #look(): void {
    if (this.#received || this.paused) this.#asked = false
    if (this.#asked) {
      this.#actions.lost()
      return
    }
    // Also where only the other side is silent: it is to be found out whether it is there.
    if (!this.#sent || !this.#received) {
      this.#asked = true
      this.#actions.ping()
    }
    this.#sent = false
    this.#received = false
  }
}
