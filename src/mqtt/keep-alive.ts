export interface KeepAliveActions {
  ping(): void
  /** Called when nothing was received for a whole interval, not even PINGRESP. */
  lost(): void
}

/**
 * The keep-alive of a connection: sends PINGREQ after half an interval in which nothing was sent [MQTT-3.1.2-23] or received, and detects a
 * broker that does not respond.
 */
export class KeepAlive {
  readonly #actions: KeepAliveActions
  #interval: number
  #timer: NodeJS.Timeout | undefined
  #sent = false
  #received = false
  #pinged = false
  /** Set while the connection is not read, so that a response cannot be received. */
  paused = false

  /** @param interval in seconds; 0 for none */
  constructor(interval: number, actions: KeepAliveActions) {
    this.#interval = interval
    this.#actions = actions
  }

  /** @param interval in seconds, if the broker requires another one */
  start(interval = this.#interval): void {
    this.#interval = interval
    if (this.#interval > 0) this.#timer = setInterval(() => this.#check(), (this.#interval * 1000) / 2)
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

  #check(): void {
    if (this.#received || this.paused) this.#pinged = false
    if (this.#pinged) {
      this.#actions.lost()
      return
    }
    // Also if only the broker is silent, to detect that it is lost.
    if (!this.#sent || !this.#received) {
      this.#pinged = true
      this.#actions.ping()
    }
    this.#sent = false
    this.#received = false
  }
}
