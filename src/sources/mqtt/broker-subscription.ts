import type { IPublishPacket } from 'mqtt-packet'
import type { Logger } from '../../base/log.js'
import { gapMarker } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { Connection } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import { messageOf } from '../../mqtt/message-of.js'
import type { ProtocolProfile } from '../../mqtt/protocol-profile.js'
import { JournalWriter } from '../journal-writer.js'
import type { RememberedSubscriptions } from '../remembered-subscriptions.js'
import { caughtUp } from './caught-up.js'
import { Deliveries } from './deliveries.js'
import type { PendingPublishes } from './pending-publishes.js'
import { RetainedDeduplicator } from './retained-deduplicator.js'
import { RetainedReconciler } from './retained-reconciler.js'

/** What a reader needs. */
export interface BrokerSubscriptionOptions {
  readonly journal: Journal
  readonly clientId: string
  readonly topics: readonly string[]
  readonly echoes: PendingPublishes
  readonly remembered: RememberedSubscriptions
  /** Makes a connection that is not the session's; its messages tell what the broker retains, and what it does not. */
  readonly openProbe: (dialect: ProtocolProfile, onMessage: OnMessage) => Promise<Connection>
  readonly log: Logger
}

type OnMessage = (packet: IPublishPacket) => void

/** Brings what the broker sends to the journal, over one connection after the other. */
export class BrokerSubscription {
  readonly #options: BrokerSubscriptionOptions
  readonly #scribe: JournalWriter
  readonly #deliveries = new Deliveries()
  #connection: Connection | undefined
  /** Whether it ever was subscribed. */
  #wasSubscribed = false
  #known: RetainedDeduplicator | undefined
  #check: RetainedReconciler | undefined
  #pressed = false
  #stopped = false
  /** Messages that came over the connection. */
  #received = 0
  #onDrained: (() => void) | undefined

  constructor(options: BrokerSubscriptionOptions) {
    this.#options = options
    const { journal, log } = options
    this.#scribe = new JournalWriter({
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
   * @param connect makes the connection
   * @param hasAll whether every message up to this subscription comes to the journal otherwise
   */
  async start(connect: (onMessage: OnMessage) => Promise<Connection>, hasAll = false): Promise<Connection> {
    let connection: Connection | undefined
    this.#received = 0
    // What a session has waiting may come in the same chunk as CONNACK.
    const early: IPublishPacket[] = []
    const onMessage: OnMessage = packet => {
      if (connection) this.#receive(packet, connection)
      else early.push(packet)
    }
    const made = await connect(onMessage)
    connection = made
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
    void this.#compareState(made)
    return made
  }

  /** Reads no more; resolves when what has come is in the journal, or cannot be just now. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#check?.stop()
    this.#connection?.pause()
    if (!this.#scribe.drained && !this.stuck) {
      await new Promise<void>(resolve => {
        this.#onDrained = resolve
      })
    }
  }

  /** Has a message that came otherwise written to the journal, in its order. */
  write(message: Message, onWritten: () => void): void {
    this.#scribe.write(message, 'now', onWritten)
  }

  close(): void {
    this.#scribe.close()
  }

  async #subscribe(connection: Connection, hasAll: boolean): Promise<void> {
    const { clientId, topics, remembered } = this.#options
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
    const missed = !hasAll && this.#hasMissed(connection)
    if (missed) this.#scribe.write(gapMarker, 'now', ignore)
    const refused = await connection.subscribe(topics, 1, tellsState)
    if (refused.length > 0) throw new Error(`the broker does not let push subscribe to ${refused.join(', ')}`)
    known?.open()
    this.#wasSubscribed = true
    if (!missed) {
      await this.#remember(connection)
      return
    }
    // Not before the hole is in the journal: the next start would not know of it.
    this.#scribe.whenWritten(() => void this.#remember(connection))
  }

  /** Whether messages may have been published between what is in the journal and this subscription. */
  #hasMissed({ sessionPresent }: Connection): boolean {
    return !sessionPresent && (this.#wasSubscribed || this.#options.journal.head > 0)
  }

  async #knownState(): Promise<RetainedDeduplicator | undefined> {
    const { journal, topics, log } = this.#options
    return RetainedDeduplicator.read(journal, topics).catch(error => {
      log.warn({ err: error }, 'the journal cannot tell what is retained; all of it becomes events once more')
      return undefined
    })
  }

  /** Has what was published while nobody read, and made a state that the broker kept, become events. */
  async #compareState(connection: Connection): Promise<void> {
    const { journal, topics, openProbe, log } = this.#options
    const check = new RetainedReconciler({
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
      this.#scribe.write(message, 'now', acknowledge)
      return
    }
    this.#scribe.write(message, 'now', event => {
      acknowledge()
      echo.arrive(event)
    })
  }

  /** What says that a message is in the journal; `undefined` where it has come before. */
  #acknowledgement(packet: IPublishPacket, payload: Buffer, connection: Connection): (() => void) | undefined {
    return packet.qos > 0 ? this.#deliveries.receive(packet, payload, connection) : ignore
  }

  #onPressure(isHigh: boolean): void {
    this.#pressed = isHigh
    if (isHigh) this.#connection?.pause()
    else if (!this.#stopped) this.#connection?.resume()
    if (this.stuck) this.#onDrained?.()
  }
}

function sameSet(some: readonly string[], others: readonly string[]): boolean {
  const [left, right] = [new Set(some), new Set(others)]
  return left.size === right.size && some.every(topic => right.has(topic))
}

function ignore(): void {}
