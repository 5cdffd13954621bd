import { setTimeout as delay } from 'node:timers/promises'
import type { IPublishPacket } from 'mqtt-packet'
import type { Logger } from '../../log.js'
import { hole, type Message } from '../event.js'
import type { Journal, Urgency } from '../journal.js'
import { caughtUp } from './caught-up.js'
import type { Connection } from './connection.js'
import type { Custodian } from './custody.js'
import { Deliveries } from './deliveries.js'
import type { Dialect } from './dialect.js'
import type { Echoes } from './echoes.js'
import { KnownState } from './known-state.js'
import { messageOf } from './message-of.js'
import type { RememberedSubscriptions, Subscriptions } from './remembered-subscriptions.js'
import { Scribe } from './scribe.js'
import { StateCheck } from './state-check.js'

/** What a reader needs. */
export interface ReaderOptions {
  readonly journal: Journal
  readonly clientId: string
  readonly topics: readonly string[]
  /**
   * Whether the broker is the one inside this process. It keeps no session, and waits with its acknowledgements until what
   * comes is in the journal; where it did not, there may be a hole.
   */
  readonly embedded: boolean
  readonly echoes: Echoes
  readonly remembered: RememberedSubscriptions
  /** Makes a connection that is not the session's; its messages tell what the broker retains, and what it does not. */
  readonly openProbe: (dialect: Dialect, onMessage: OnMessage) => Promise<Connection>
  readonly log: Logger
}

type OnMessage = (packet: IPublishPacket) => void

/** How long the broker in this process may take to bring what it has, when the session ends; in milliseconds. */
const lastTimeout = 2000

/** Brings what the broker sends to the journal, over one connection after the other. */
export class Reader {
  readonly #options: ReaderOptions
  readonly #scribe: Scribe
  readonly #deliveries = new Deliveries()
  #connection: Connection | undefined
  /** Whether it ever was subscribed. */
  #wasSubscribed = false
  /** Whether messages were acknowledged without being in the journal, and may not get there. */
  #lapsed = false
  /** Whether all that came is in the journal, and nothing more comes. */
  #finished = false
  #known: KnownState | undefined
  #check: StateCheck | undefined
  #pressed = false
  #stopped = false
  /** Messages that came over the connection, and up to which of them somebody waits for it to be written. */
  #received = 0
  #awaited = 0
  /** Tells the broker in this process that one more is in the journal. */
  #keep: () => void = ignore
  #onDrained: (() => void) | undefined
  #onStuck: (() => void) | undefined

  constructor(options: ReaderOptions) {
    this.#options = options
    const { journal, log } = options
    this.#scribe = new Scribe({
      journal,
      log,
      onPressure: isHigh => this.#onPressure(isHigh),
      onDrained: () => this.#onDrained?.(),
    })
  }

  /** Whether the journal takes nothing just now. */
  get stuck(): boolean {
    return this.#scribe.stuck
  }

  /**
   * Makes a connection that reads, and subscribes, unless the broker still has the subscriptions. What a broker elsewhere
   * retains is compared with the journal afterwards.
   *
   * @param connect makes the connection; the custodian is for a broker that waits
   * @param hasAll whether every message up to this subscription comes to the journal otherwise
   */
  async start(
    connect: (onMessage: OnMessage, custodian: Custodian) => Promise<Connection>,
    hasAll = false,
  ): Promise<Connection> {
    let connection: Connection | undefined
    this.#received = 0
    this.#awaited = 0
    // What a session has waiting may come in the same chunk as CONNACK.
    const early: IPublishPacket[] = []
    const onMessage: OnMessage = packet => {
      if (connection) this.#receive(packet, connection)
      else early.push(packet)
    }
    const made = await connect(onMessage, {
      lapsed: () => this.#lapse(),
      restored: () => {
        this.#lapsed = false
        void this.#remember(made)
      },
      awaited: count => {
        this.#awaited = count
      },
    })
    connection = made
    this.#keep = () => made.keep()
    this.#lapsed = false
    this.#connection = made
    this.#deliveries.begin(made.sessionPresent)
    for (const packet of early) this.#receive(packet, made)
    if (this.#pressed) made.pause()
    try {
      await this.#subscribe(made, hasAll)
    } catch (error) {
      made.destroy(error instanceof Error ? error : new Error(String(error)))
      throw error
    }
    if (!this.#options.embedded) void this.#compareState(made)
    return made
  }

  /** Reads no more; resolves when what has come is in the journal, or cannot be just now. */
  async stop(): Promise<void> {
    const isLast = this.#options.embedded && (await this.#bringLast())
    this.#stopped = true
    this.#check?.stop()
    this.#connection?.pause()
    if (!this.#scribe.drained && !this.stuck) {
      await new Promise<void>(resolve => {
        this.#onDrained = resolve
      })
    }
    this.#finished = isLast && this.#scribe.drained && !this.#lapsed
  }

  /** Has the broker send what it has, which it will not keep, and nothing more; tells whether it has. */
  async #bringLast(): Promise<boolean> {
    const connection = this.#connection
    if (!connection || this.stuck) return false
    // Behind all that was handed over before.
    const unsubscribed = connection.unsubscribe(this.#options.topics).then(
      () => true,
      () => false,
    )
    const stuck = new Promise<boolean>(resolve => {
      this.#onStuck = () => resolve(false)
    })
    return Promise.race([unsubscribed, stuck, delay(lastTimeout, false, { ref: false })])
  }

  /** Has a message that came otherwise written to the journal, in its order. */
  write(message: Message, onWritten: () => void): void {
    this.#scribe.write(message, 'now', onWritten)
  }

  close(): void {
    this.#scribe.close()
  }

  async #subscribe(connection: Connection, hasAll: boolean): Promise<void> {
    const { clientId, topics, embedded, remembered } = this.#options
    const last = await remembered.load()
    const isSame = last?.clientId === clientId && last.dialect === connection.dialect.name
    const isSubscribed = isSame && sameSet(last.topics, topics)
    if (connection.sessionPresent && isSubscribed) return
    const left = last?.clientId === clientId ? last.topics.filter(topic => !topics.includes(topic)) : []
    if (connection.sessionPresent && left.length > 0) await connection.unsubscribe(left)
    // MQTT 5 does not tell it here; others cannot leave it out.
    const tellsState = connection.dialect.protocolVersion !== 5
    const known = tellsState ? await this.#knownState() : undefined
    // It may come before SUBACK (MQTT 3.1.1 §3.8.4).
    this.#known = known
    const missed = !hasAll && this.#hasMissed(connection, last)
    if (missed) this.#scribe.write(hole, 'now', ignore)
    const refused = await connection.subscribe(topics, embedded ? 0 : 1, tellsState)
    if (refused.length > 0) throw new Error(`the broker does not let push subscribe to ${refused.join(', ')}`)
    known?.open()
    this.#wasSubscribed = true
    if (!missed) {
      await this.#remember(connection)
      return
    }
    // Not before the hole is in the journal: the next start would not know of it.
    this.#scribe.whenWritten(() => {
      if (!this.#lapsed) void this.#remember(connection)
    })
  }

  /** Whether messages may have been published between what is in the journal and this subscription. */
  #hasMissed({ sessionPresent }: Connection, last: Subscriptions | undefined): boolean {
    const { embedded, journal } = this.#options
    if (sessionPresent) return false
    return this.#wasSubscribed || (journal.head > 0 && !(embedded && last !== undefined))
  }

  async #knownState(): Promise<KnownState | undefined> {
    const { journal, topics, log } = this.#options
    return KnownState.read(journal, topics).catch(error => {
      log.warn({ err: error }, 'the journal cannot tell what is retained; all of it becomes events once more')
      return undefined
    })
  }

  /** Has what was published while nobody read, and made a state that the broker kept, become events. */
  async #compareState(connection: Connection): Promise<void> {
    const { journal, topics, openProbe, log } = this.#options
    const check = new StateCheck({
      ...{ journal, topics, reading: connection },
      open: onMessage => openProbe(connection.dialect, onMessage),
      onMissed: message => this.#scribe.write(message, 'now', ignore),
    })
    try {
      await caughtUp(connection, this.#deliveries, () => this.#received)
      this.#check = check
      await new Promise<void>(resolve => this.#scribe.whenWritten(resolve))
      if (!this.#stopped && !connection.closed) await check.run()
    } catch (error) {
      if (this.#stopped || connection.closed) return
      log.warn({ err: error }, 'push cannot compare what the broker retains; newcomers may get a state that has passed')
    } finally {
      if (this.#check === check) this.#check = undefined
    }
  }

  async #remember({ dialect }: Connection): Promise<void> {
    const { clientId, topics, remembered, log } = this.#options
    await remembered.save({ clientId, dialect: dialect.name, topics }).catch(error => {
      log.warn({ err: error }, 'what push is subscribed to cannot be written down; it subscribes anew after a restart')
    })
  }

  /** The next start is to know that something may be missing, whatever becomes of this process. */
  async #lapse(): Promise<void> {
    if (this.#finished) return
    this.#lapsed = true
    const { remembered, log } = this.#options
    log.warn(
      'messages are acknowledged that are not in the journal; where that loses any, subscribers are told of a gap',
    )
    await remembered.forget().catch(error => {
      log.error({ err: error }, 'that messages may be missing cannot be written down; a restart would not tell of it')
    })
  }

  #receive(packet: IPublishPacket, connection: Connection): void {
    this.#received++
    let message = messageOf(packet)
    const acknowledge = this.#acknowledgement(packet, message.payload, connection)
    if (!acknowledge) return
    const { retainAsPublished } = connection.dialect
    const echo = this.#options.echoes.take(message, retainAsPublished)
    if (!echo && this.#known?.has(message)) {
      this.#scribe.whenWritten(acknowledge)
      return
    }
    if (message.retain || !retainAsPublished) this.#check?.changed(message.topic)
    if (echo && !retainAsPublished) message = { ...message, retain: echo.message.retain }
    if (!echo) {
      this.#scribe.write(message, this.#urgency(), acknowledge)
      return
    }
    this.#scribe.write(message, 'now', event => {
      acknowledge()
      echo.arrive(event)
    })
  }

  /** Another broker sends no more than some number of messages that are not acknowledged. */
  #urgency(): Urgency {
    return this.#options.embedded && this.#received > this.#awaited ? 'at leisure' : 'now'
  }

  /** What says that a message is in the journal; `undefined` where it has come before. */
  #acknowledgement(packet: IPublishPacket, payload: Buffer, connection: Connection): (() => void) | undefined {
    if (this.#options.embedded) return this.#keep
    return packet.qos > 0 ? this.#deliveries.receive(packet, payload, connection) : ignore
  }

  #onPressure(isHigh: boolean): void {
    this.#pressed = isHigh
    if (isHigh) this.#connection?.pause()
    else if (!this.#stopped) this.#connection?.resume()
    if (!this.stuck) return
    this.#onDrained?.()
    this.#onStuck?.()
  }
}

function sameSet(some: readonly string[], others: readonly string[]): boolean {
  const [left, right] = [new Set(some), new Set(others)]
  return left.size === right.size && some.every(topic => right.has(topic))
}

function ignore(): void {}
