import type { IPublishPacket } from 'mqtt-packet'
import type { Logger } from '../../base/log.js'
import type { Connection, ConnectionOptions } from '../../mqtt/connection.js'
import { type Message, messageOf } from '../../mqtt/message.js'
import type { RememberedSubscriptions } from '../remembered-subscriptions.js'
import { caughtUp, Deliveries } from './deliveries.js'

/** Connection and journal of a former session. */
export interface FormerSessionOptions {
  readonly clientId: string
  readonly topics: readonly string[]
  readonly remembered: RememberedSubscriptions
  readonly connect: (own: Pick<ConnectionOptions, 'clientId' | 'clean' | 'onMessage'>) => Promise<Connection>
  /** Appends a message to the journal. */
  readonly write: (message: Message, onWritten: () => void) => void
  /** Called when the broker has deleted the session. */
  readonly forget: () => Promise<void>
  readonly log: Logger
}

/**
 * The broker's session of an earlier version, under a client id that could be guessed. Its messages go to the journal, the new session
 * begins, and then the former one ends: no message is lost, and one that is published in between may become two events (QoS 1: at least
 * once).
 */
export class FormerSession {
  readonly #options: FormerSessionOptions
  readonly #deliveries = new Deliveries()
  #connection: Connection | undefined
  #received = 0
  #isOver = false

  constructor(options: FormerSessionOptions) {
    this.#options = options
  }

  /**
   * Reads the former session's messages into the journal, until `end`. Never rejects: the next call retries.
   *
   * @returns whether the journal gets every message of the topics through it
   */
  async resume(): Promise<boolean> {
    if (this.#isOver) return false
    const { clientId, connect, remembered, topics, log } = this.#options
    try {
      const connection = await this.#deliveries.connect(
        onMessage => connect({ clientId, clean: false, onMessage }),
        (packet, source) => this.#receive(packet, source),
      )
      this.#connection = connection
      await caughtUp(connection, this.#deliveries, () => this.#received)
      const last = await remembered.load()
      if (!connection.sessionPresent || last?.clientId !== clientId) return false
      return topics.every(topic => last.topics.includes(topic))
    } catch (error) {
      log.debug({ err: error }, 'failed to resume the session of an earlier version')
      return false
    }
  }

  /** Unsubscribes, reads the remaining messages, and deletes the session. Call when the new session is subscribed. */
  async end(): Promise<void> {
    const connection = this.#connection
    if (this.#isOver || !connection) return
    const { clientId, connect, topics, forget, log } = this.#options
    try {
      await connection.unsubscribe(topics)
      await caughtUp(connection, this.#deliveries, () => this.#received)
      await connection.end()
      // [MQTT-3.1.2-6]: a clean session lasts as long as its connection.
      const clean = await connect({ clientId, clean: true })
      await clean.end()
      this.#isOver = true
      await forget()
      log.info({ clientId }, 'push took over the session of an earlier version')
    } catch (error) {
      connection.destroy(new Error('the former session failed to end', { cause: error }))
      log.warn(
        { err: error, clientId },
        'failed to end the session of an earlier version; push retries with its next connection',
      )
    } finally {
      this.#connection = undefined
    }
  }

  /** Disconnects; the next start reads the broker's remaining messages. */
  close(): void {
    this.#connection?.destroy(new Error('the session was closed'))
  }

  #receive(packet: IPublishPacket, connection: Connection): void {
    this.#received++
    const message = messageOf(packet)
    const acknowledge = this.#deliveries.receive(packet, message.payload, connection)
    if (acknowledge) this.#options.write(message, acknowledge)
  }
}
