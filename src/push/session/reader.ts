import type { IPublishPacket } from 'mqtt-packet'
import type { Logger } from '../../log.js'
import type { Message } from '../event.js'
import type { Journal } from '../journal.js'
import type { Connection } from './connection.js'
import { Deliveries } from './deliveries.js'
import type { Echoes } from './echoes.js'
import { KnownState } from './known-state.js'
import type { RememberedSubscriptions } from './remembered-subscriptions.js'
import { Scribe } from './scribe.js'

/** What a reader needs. */
export interface ReaderOptions {
  readonly journal: Journal
  readonly clientId: string
  readonly topics: readonly string[]
  readonly echoes: Echoes
  readonly remembered: RememberedSubscriptions
  readonly log: Logger
}

type OnMessage = (packet: IPublishPacket) => void

/** Brings what the broker sends to the journal, over one connection after the other. */
export class Reader {
  readonly #options: ReaderOptions
  readonly #scribe: Scribe
  readonly #deliveries = new Deliveries()
  #connection: Connection | undefined
  #known: KnownState | undefined
  #pressed = false
  #stopped = false
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
    this.#deliveries.begin(made.sessionPresent)
    for (const packet of early) this.#receive(packet, made)
    if (this.#pressed) made.pause()
    try {
      await this.#subscribe(made)
    } catch (error) {
      made.destroy(error instanceof Error ? error : new Error(String(error)))
      throw error
    }
    return made
  }

  /** Reads no more; resolves when what has come is in the journal, or cannot be just now. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#connection?.pause()
    if (this.#underWay === 0 || this.stuck) return
    await new Promise<void>(resolve => {
      this.#onDrained = resolve
    })
  }

  close(): void {
    this.#scribe.close()
  }

  async #subscribe(connection: Connection): Promise<void> {
    const { clientId, topics, remembered, journal, log } = this.#options
    const wanted = { clientId, dialect: connection.dialect.name, topics }
    const last = await remembered.load()
    const isSame = last?.clientId === clientId && last.dialect === wanted.dialect
    const hasAll = isSame && sameSet(last.topics, topics)
    if (connection.sessionPresent && hasAll) return
    const left = last?.clientId === clientId ? last.topics.filter(topic => !topics.includes(topic)) : []
    if (connection.sessionPresent && left.length > 0) await connection.unsubscribe(left)
    const known = await KnownState.read(journal, topics).catch(error => {
      log.warn({ err: error }, 'the journal cannot tell what is retained; all of it becomes events once more')
      return undefined
    })
    // It may come before SUBACK (MQTT 3.1.1 §3.8.4).
    this.#known = known
    const refused = await connection.subscribe(topics)
    if (refused.length > 0) throw new Error(`the broker does not let push subscribe to ${refused.join(', ')}`)
    known?.open()
    await remembered.save(wanted).catch(error => {
      log.warn({ err: error }, 'what push is subscribed to cannot be written down; it subscribes anew after a restart')
    })
  }

  #receive(packet: IPublishPacket, connection: Connection): void {
    let message = messageOf(packet)
    const acknowledge = packet.qos > 0 ? this.#deliveries.receive(packet, message.payload, connection) : ignore
    if (!acknowledge) return
    const { retainAsPublished } = connection.dialect
    const echo = this.#options.echoes.take(message, retainAsPublished)
    if (!echo && this.#known?.has(message)) {
      acknowledge()
      return
    }
    if (echo && !retainAsPublished) message = { ...message, retain: echo.message.retain }
    this.#underWay++
    this.#scribe.write(message, event => {
      this.#underWay--
      acknowledge()
      echo?.arrive(event)
      if (this.#underWay === 0) this.#onDrained?.()
    })
  }

  #onPressure(isHigh: boolean): void {
    this.#pressed = isHigh
    if (isHigh) this.#connection?.pause()
    else if (!this.#stopped) this.#connection?.resume()
    if (this.stuck) this.#onDrained?.()
  }
}

function messageOf({ topic, payload, qos, retain }: IPublishPacket): Message {
  return { topic, payload: typeof payload === 'string' ? Buffer.from(payload) : payload, qos, retain }
}

function sameSet(some: readonly string[], others: readonly string[]): boolean {
  const [left, right] = [new Set(some), new Set(others)]
  return left.size === right.size && some.every(topic => right.has(topic))
}

function ignore(): void {}
