import type { IPublishPacket } from 'mqtt-packet'
import type { Logger } from '../../base/log.js'
import type { Connection, ConnectionOptions } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import { messageOf } from '../../mqtt/message-of.js'
import type { RememberedSubscriptions } from '../remembered-subscriptions.js'
import { caughtUp } from './caught-up.js'
import { Deliveries } from './deliveries.js'

/** What a former session needs. */
export interface FormerSessionOptions {
  readonly clientId: string
  readonly topics: readonly string[]
  readonly remembered: RememberedSubscriptions
  readonly connect: (own: Pick<ConnectionOptions, 'clientId' | 'clean' | 'onMessage'>) => Promise<Connection>
  /** Has a message written to the journal. */
  readonly write: (message: Message, onWritten: () => void) => void
  /** Call when the broker keeps nothing under this client id any more. */
  readonly forget: () => Promise<void>
  readonly log: Logger
}

/**
 * The session that an earlier version left with the broker under a client id that can be guessed. What is kept in it goes to the
 * journal, the new session begins, and then the former one ends: no message is lost, and one that is published in between may
 * become two events (QoS 1: at least once).
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
   * Brings what the former session keeps to the journal, and goes on with it until `end`. Never rejects: a broker that is away is
   * tried again with the next call.
   *
   * @returns whether it has every message of the topics up to now, and will have those that come
   */
  async resume(): Promise<boolean> {
    if (this.#isOver) return false
    const { clientId, connect, remembered, topics, log } = this.#options
    try {
      const early: IPublishPacket[] = []
      let current: Connection | undefined
      const made = await connect({
        clientId,
        clean: false,
        onMessage: packet => {
          if (current) this.#receive(packet, current)
          else early.push(packet)
        },
      })
      current = made
      this.#connection = made
      this.#deliveries.begin(made.sessionPresent)
      for (const packet of early) this.#receive(packet, made)
      await caughtUp(made, this.#deliveries, () => this.#received)
      const last = await remembered.load()
      return made.sessionPresent && last?.clientId === clientId && topics.every(topic => last.topics.includes(topic))
    } catch (error) {
      log.debug({ err: error }, 'push cannot resume the session of an earlier version yet')
      return false
    }
  }

  /** Unsubscribes, takes what is still on its way, and has the broker forget the session. Call when the new one is subscribed. */
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
      log.info({ clientId }, 'push took over the session of an earlier version, whose client id could be guessed')
    } catch (error) {
      connection.destroy(new Error('the former session is given up', { cause: error }))
      log.warn(
        { err: error, clientId },
        'push cannot end the session of an earlier version; it is tried again with the next connection',
      )
    } finally {
      this.#connection = undefined
    }
  }

  /** Leaves what the broker still has for the next start. */
  close(): void {
    this.#connection?.destroy(new Error('the session was closed'))
  }

  #receive(packet: IPublishPacket, connection: Connection): void {
    this.#received++
    const message = messageOf(packet)
    const acknowledge = packet.qos > 0 ? this.#deliveries.receive(packet, message.payload, connection) : () => {}
    if (acknowledge) this.#options.write(message, acknowledge)
  }
}
