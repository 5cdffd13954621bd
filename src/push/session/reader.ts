import type { IPublishPacket } from 'mqtt-packet'
import type { Logger } from '../../log.js'
import type { Message } from '../event.js'
import type { Journal } from '../journal.js'
import type { Connection } from './connection.js'
import type { Echoes } from './echoes.js'
import { Scribe } from './scribe.js'

/** What a reader needs. */
export interface ReaderOptions {
  readonly journal: Journal
  readonly topics: readonly string[]
  readonly echoes: Echoes
  readonly log: Logger
}

type OnMessage = (packet: IPublishPacket) => void

/** Brings what the broker sends to the journal, over one connection after the other. */
export class Reader {
  readonly #options: ReaderOptions
  readonly #scribe: Scribe
  #connection: Connection | undefined
  #pressed = false
  #underWay = 0
  #onDrained: (() => void) | undefined

  constructor(options: ReaderOptions) {
    this.#options = options
    const { journal, log } = options
    this.#scribe = new Scribe({ journal, log, onPressure: isHigh => this.#onPressure(isHigh) })
  }

  /** Whether the journal takes nothing just now. */
  get stuck(): boolean {
    return this.#scribe.stuck
  }

  /**
   * Makes a connection that reads, and subscribes, unless the broker still has the subscriptions: it would tell all that
   * is retained again.
   *
   * @param connect makes the connection
   */
  async start(connect: (onMessage: OnMessage) => Promise<Connection>): Promise<Connection> {
    let connection: Connection | undefined
    // What a session has waiting may come in the same chunk as CONNACK.
    const early: IPublishPacket[] = []
    const made = await connect(packet => {
      if (connection) this.#receive(packet, connection)
      else early.push(packet)
    })
    connection = made
    this.#connection = made
    for (const packet of early) this.#receive(packet, made)
    if (this.#pressed) made.pause()
    try {
      if (!made.sessionPresent) await this.#subscribe(made)
    } catch (error) {
      made.destroy(error instanceof Error ? error : new Error(String(error)))
      throw error
    }
    return made
  }

  /** Resolves when what has come is in the journal, or cannot be just now. */
  async drained(): Promise<void> {
    if (this.#underWay === 0 || this.stuck) return
    await new Promise<void>(resolve => {
      this.#onDrained = resolve
    })
  }

  close(): void {
    this.#scribe.close()
  }

  async #subscribe(connection: Connection): Promise<void> {
    const refused = await connection.subscribe(this.#options.topics)
    if (refused.length > 0) throw new Error(`the broker does not let push subscribe to ${refused.join(', ')}`)
  }

  #receive(packet: IPublishPacket, connection: Connection): void {
    const { messageId } = packet
    const { dialect } = connection
    let message = messageOf(packet)
    const echo = this.#options.echoes.take(message, dialect.retainAsPublished)
    if (echo && !dialect.retainAsPublished) message = { ...message, retain: echo.message.retain }
    this.#underWay++
    this.#scribe.write(message, event => {
      this.#underWay--
      if (packet.qos > 0 && messageId !== undefined) connection.acknowledge(messageId)
      echo?.arrive(event)
      if (this.#underWay === 0) this.#onDrained?.()
    })
  }

  #onPressure(isHigh: boolean): void {
    this.#pressed = isHigh
    if (isHigh) this.#connection?.pause()
    else this.#connection?.resume()
    if (isHigh && this.stuck) this.#onDrained?.()
  }
}

function messageOf({ topic, payload, qos, retain }: IPublishPacket): Message {
  return { topic, payload: typeof payload === 'string' ? Buffer.from(payload) : payload, qos, retain }
}
