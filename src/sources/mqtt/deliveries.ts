import type { IPublishPacket } from 'mqtt-packet'
import type { Connection } from '../../mqtt/connection.js'

/** One message of QoS 1 that has come and is not acknowledged. */
export interface Delivery {
  readonly messageId: number
  readonly topic: string
  readonly payload: Buffer
  /** Over which it came last. */
  connection: Connection
  written: boolean
}

/**
 * The messages of QoS 1 that have come and are not acknowledged: when a connection is lost, a broker that kept the session
 * sends them again, and they are not to be written down twice.
 *
 * One is known again by DUP, its packet identifier and what is in it; as it was never acknowledged, the broker cannot have
 * given its identifier to another.
 */
export class Deliveries {
  readonly #open = new Set<Delivery>()
  /** How many came over a connection that is lost. */
  #lost = 0
  #onAcknowledged: (() => void)[] = []

  /** Resolves as soon as one is acknowledged, or at once where there is none. */
  acknowledged(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve()
    return new Promise(resolve => this.#onAcknowledged.push(resolve))
  }

  /** Call when a connection begins, with whether the broker still has the session. */
  begin(sessionPresent: boolean): void {
    if (!sessionPresent) this.#open.clear()
    this.#lost = this.#open.size
  }

  /**
   * Notes a message of QoS 1.
   *
   * @returns what to call when it is written down, which acknowledges it; `undefined` for one that has come before
   */
  receive(
    { messageId = 0, dup, topic }: IPublishPacket,
    payload: Buffer,
    connection: Connection,
  ): (() => void) | undefined {
    if (this.#lost > 0 && dup && this.#isAgain(messageId, topic, payload, connection)) return undefined
    // What is new comes after all that comes again [MQTT-4.6.0-1].
    if (this.#lost > 0 && !dup) this.#forgetLost(connection)
    const delivery: Delivery = { messageId, topic, payload, connection, written: false }
    this.#open.add(delivery)
    return () => {
      delivery.written = true
      this.#acknowledge(delivery)
    }
  }

  #isAgain(messageId: number, topic: string, payload: Buffer, connection: Connection): boolean {
    for (const delivery of this.#open) {
      if (delivery.connection === connection || delivery.messageId !== messageId) continue
      if (delivery.topic !== topic || !delivery.payload.equals(payload)) continue
      this.#lost--
      delivery.connection = connection
      if (delivery.written) this.#acknowledge(delivery)
      return true
    }
    return false
  }

  #acknowledge(delivery: Delivery): void {
    const { connection, messageId } = delivery
    if (connection.closed) return
    this.#open.delete(delivery)
    connection.acknowledge(messageId)
    for (const resolve of this.#onAcknowledged.splice(0)) resolve()
  }

  #forgetLost(connection: Connection): void {
    for (const delivery of this.#open) if (delivery.connection !== connection) this.#open.delete(delivery)
    this.#lost = 0
  }
}
