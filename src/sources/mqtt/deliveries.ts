import { setTimeout as delay } from 'node:timers/promises'
import { deliveryDigest } from '../../journal/delivery-digest.js'
import type { Connection } from '../../mqtt/connection.js'
import type { ReceivedMessage } from '../../mqtt/publish-packet.js'

/** Time limit of `caughtUp`, and its interval between checks, in milliseconds. */
const [catchUpTimeout, checkInterval] = [5000, 50]

/**
 * Acknowledged messages that may come again, because the broker may have ended before it read their PUBACK: mosquitto stores its queues when it ends. Far
 * fewer than there are packet identifiers, which brokers give in turn.
 */
const maxAcknowledged = 1000

/** A message of QoS 1 that the broker may send again. */
interface Delivery {
  readonly messageId: number
  /** Whether it has this topic and payload. */
  readonly isOf: (topic: string, payload: Buffer) => boolean
  /** The connection that delivered it last; `undefined` for one of another gateway. */
  connection: Connection | undefined
  written: boolean
}

/**
 * Messages of QoS 1 whose acknowledgement the broker may not have: after a lost connection, a broker with a persistent session sends them again, and they
 * must not become two events. A repetition has DUP and the same packet identifier, topic and payload; the broker cannot reuse the identifier before the
 * acknowledgement.
 */
export class Deliveries {
  readonly #unacknowledged = new Set<Delivery>()
  /** By packet identifier, digests of the newest acknowledged messages, the oldest first. */
  readonly #acknowledged = new Map<number, string>()
  /** Whether the broker gives identifiers again at once: then a message with an earlier identifier and the same content may be another one. */
  #reusesIdentifiers = false
  /** Deliveries over a connection that is lost. */
  #lost = 0
  #received = 0
  readonly #onAcknowledged: (() => void)[] = []
  readonly #onFree: (messageId: number) => void

  /**
   * @param earlier by packet identifier, digests of messages that another gateway has written, and perhaps not acknowledged
   * @param onFree called with each packet identifier whose message does not come again
   */
  constructor(earlier: ReadonlyMap<number, string> = new Map(), onFree: (messageId: number) => void = ignore) {
    this.#onFree = onFree
    for (const [messageId, digest] of earlier) this.#expect(messageId, digest)
  }

  /** Notes a written message that may come again. */
  #expect(messageId: number, digest: string): void {
    const isOf: Delivery['isOf'] = (topic, payload) => deliveryDigest({ topic, payload }) === digest
    this.#unacknowledged.add({ messageId, isOf, connection: undefined, written: true })
  }

  /**
   * Connects; messages that arrive together with CONNACK are received after it.
   *
   * @param onMessage receives each message with its connection
   */
  async connect(
    connect: (onMessage: (message: ReceivedMessage) => void) => Promise<Connection>,
    onMessage: (message: ReceivedMessage, connection: Connection) => void,
  ): Promise<Connection> {
    let current: Connection | undefined
    const early: ReceivedMessage[] = []
    const connection = await connect(message => {
      if (current) onMessage(message, current)
      else early.push(message)
    })
    current = connection
    for (const [messageId, digest] of this.#acknowledged) this.#expect(messageId, digest)
    this.#acknowledged.clear()
    if (!connection.sessionPresent) this.#unacknowledged.clear()
    this.#lost = this.#unacknowledged.size
    for (const message of early) onMessage(message, connection)
    return connection
  }

  /**
   * Resolves when the broker has sent its stored messages, as far as a client can tell: a broker with more of them sends some for each
   * acknowledgement, before it answers a later ping. A client that publishes without a pause looks the same.
   *
   * @throws {Error} rejects when the connection ends
   */
  async caughtUp(connection: Connection): Promise<void> {
    const deadline = performance.now() + catchUpTimeout
    while (performance.now() < deadline) {
      if (this.#isWaiting(connection)) await new Promise<void>(resolve => this.#onAcknowledged.push(resolve))
      const before = this.#received
      await connection.ping()
      if (this.#received === before) return
      await delay(checkInterval, undefined, { ref: false })
    }
  }

  /** Whether a message of this connection is not acknowledged. */
  #isWaiting(connection: Connection): boolean {
    for (const delivery of this.#unacknowledged) if (delivery.connection === connection) return true
    return false
  }

  /**
   * Notes a received message.
   *
   * @returns acknowledges it; to be called when it is written. `undefined` for a repetition
   */
  receive(message: ReceivedMessage, connection: Connection): (() => void) | undefined {
    this.#received++
    const { messageId = 0, dup, topic, payload, qos } = message
    if (qos === 0) return ignore
    if (this.#lost > 0 && dup && this.#isRepetition(messageId, topic, payload, connection)) return undefined
    // New messages follow all repetitions [MQTT-4.6.0-1].
    if (this.#lost > 0 && !dup) this.#forgetLost(connection)
    if (this.#acknowledged.has(messageId)) this.#forgetAcknowledged()
    const isOf: Delivery['isOf'] = (other, content) => other === topic && content.equals(payload)
    const delivery: Delivery = { messageId, isOf, connection, written: false }
    this.#unacknowledged.add(delivery)
    return () => {
      delivery.written = true
      if (this.#acknowledge(delivery)) this.#remember(messageId, message)
    }
  }

  #isRepetition(messageId: number, topic: string, payload: Buffer, connection: Connection): boolean {
    for (const delivery of this.#unacknowledged) {
      if (delivery.connection === connection || delivery.messageId !== messageId) continue
      if (!delivery.isOf(topic, payload)) continue
      this.#lost--
      delivery.connection = connection
      if (delivery.written && this.#acknowledge(delivery)) this.#remember(messageId, { topic, payload })
      return true
    }
    return false
  }

  /** @returns whether it could: the connection may be lost */
  #acknowledge(delivery: Delivery): boolean {
    const { connection, messageId } = delivery
    if (!connection || connection.closed) return false
    this.#unacknowledged.delete(delivery)
    connection.acknowledge(messageId)
    for (const resolve of this.#onAcknowledged.splice(0)) resolve()
    return true
  }

  #remember(messageId: number, message: Pick<ReceivedMessage, 'topic' | 'payload'>): void {
    if (this.#reusesIdentifiers) return this.#onFree(messageId)
    this.#acknowledged.set(messageId, deliveryDigest(message))
    if (this.#acknowledged.size <= maxAcknowledged) return
    for (const oldest of this.#acknowledged.keys()) {
      this.#acknowledged.delete(oldest)
      this.#onFree(oldest)
      return
    }
  }

  #forgetAcknowledged(): void {
    this.#reusesIdentifiers = true
    for (const messageId of this.#acknowledged.keys()) this.#onFree(messageId)
    this.#acknowledged.clear()
  }

  #forgetLost(connection: Connection): void {
    for (const delivery of this.#unacknowledged) {
      if (delivery.connection === connection) continue
      this.#unacknowledged.delete(delivery)
      this.#onFree(delivery.messageId)
    }
    this.#lost = 0
  }
}

function ignore(): void {}
