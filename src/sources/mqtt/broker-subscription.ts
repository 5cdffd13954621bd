import type { Logger } from '../../base/log.js'
import { gapMarker } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { Connection } from '../../mqtt/connection.js'
import type { Message } from '../../mqtt/message.js'
import type { ProtocolProfile } from '../../mqtt/protocol-profile.js'
import type { ReceivedMessage } from '../../mqtt/publish-packet.js'
import { isResponseTopic } from '../../topics/response-topic.js'
import { JournalWriter } from '../journal-writer.js'
import type { RememberedSubscriptions } from '../remembered-subscriptions.js'
import { type Digests, readDigests } from '../retained-digests.js'
import { Deliveries } from './deliveries.js'
import type { PendingPublishes } from './pending-publishes.js'
import { RetainedDeduplicator } from './retained-deduplicator.js'
import { RetainedReconciler } from './retained-reconciler.js'

export interface BrokerSubscriptionOptions {
  readonly journal: Pick<Journal, 'append' | 'head' | 'retained'>
  /** Messages that another gateway received over the same session; left out for none. */
  readonly deliveries?: Deliveries | undefined
  readonly clientId: string
  readonly topics: readonly string[]
  /** The gateway's own publishes, which the broker returns. */
  readonly pending: PendingPublishes
  readonly remembered: Pick<RememberedSubscriptions, 'load' | 'save'>
  /** Opens a separate connection, for comparing the broker's retained messages. */
  readonly openProbe: (profile: ProtocolProfile, onMessage: OnMessage) => Promise<Connection>
  readonly log: Logger
}

type OnMessage = (message: ReceivedMessage) => void

/** Appends the broker's messages to the journal, over one connection after the other. */
export class BrokerSubscription {
  readonly #options: BrokerSubscriptionOptions
  readonly #writer: JournalWriter
  readonly #deliveries: Deliveries
  #topics: readonly string[]
  /** Resolves when the last change of the subscriptions has been made, or has failed. */
  #changing: Promise<unknown> = Promise.resolve()
  #connection: Connection | undefined
  #wasSubscribed = false
  #deduplicator: RetainedDeduplicator | undefined
  #reconciler: RetainedReconciler | undefined
  #isPaused = false
  #stopped = false
  #onDrained: (() => void) | undefined

  constructor(options: BrokerSubscriptionOptions) {
    this.#options = options
    this.#topics = options.topics
    const { journal, log } = options
    this.#deliveries = options.deliveries ?? new Deliveries()
    this.#writer = new JournalWriter({
      journal,
      log,
      onPressure: isHigh => this.#onPressure(isHigh),
      onDrained: () => this.#onDrained?.(),
    })
  }

  /** Whether the journal refuses messages at present. */
  get stuck(): boolean {
    return this.#writer.stuck
  }

  /**
   * Connects and subscribes, unless the broker still has the subscriptions. Afterwards, compares the broker's retained messages with the
   * journal's.
   */
  async start(connect: (onMessage: OnMessage) => Promise<Connection>): Promise<Connection> {
    const connection = await this.#deliveries.connect(connect, (message, source) => this.#receive(message, source))
    this.#connection = connection
    if (this.#isPaused) connection.pause()
    try {
      await this.#inOrder(() => this.#subscribe(connection, connection.sessionPresent))
    } catch (error) {
      connection.destroy(error instanceof Error ? error : new Error(String(error)))
      throw error
    }
    void this.#reconcileRetained(connection)
    return connection
  }

  /** Subscribes to other topics, now or with the next connection. Never rejects: a connection that fails is replaced. */
  async changeTopics(topics: readonly string[]): Promise<void> {
    await this.#inOrder(async () => {
      this.#topics = topics
      const connection = this.#connection
      if (!connection || connection.closed) return
      try {
        await this.#subscribe(connection, true)
        this.#reconciler?.stop()
        void this.#reconcileRetained(connection)
      } catch (error) {
        connection.destroy(error instanceof Error ? error : new Error(String(error)))
      }
    })
  }

  #inOrder(change: () => Promise<void>): Promise<void> {
    const changed = this.#changing.then(change)
    this.#changing = changed.catch(() => {})
    return changed
  }

  /** Stops reading; resolves when all received messages are in the journal, or the journal refuses them. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#reconciler?.stop()
    this.#connection?.pause()
    if (this.#writer.drained || this.stuck) return
    await new Promise<void>(resolve => {
      this.#onDrained = resolve
    })
  }

  close(): void {
    this.#writer.close()
  }

  /** @param hasSession whether the broker has the remembered subscriptions */
  async #subscribe(connection: Connection, hasSession: boolean): Promise<void> {
    const { clientId, remembered } = this.#options
    const topics = this.#topics
    const stored = await remembered.load()
    const last = stored?.clientId === clientId ? stored : undefined
    const isSubscribed = last?.dialect === connection.profile.name && sameSet(last.topics, topics)
    if (hasSession && isSubscribed) return
    const obsolete = last?.topics.filter(topic => !topics.includes(topic)) ?? []
    if (hasSession && obsolete.length > 0) await connection.unsubscribe(obsolete)
    // MQTT 5 can leave retained messages out; other versions always send them.
    const sendsRetained = connection.profile.protocolVersion !== 5
    // They may precede SUBACK (MQTT 3.1.1 §3.8.4).
    this.#deduplicator = sendsRetained ? new RetainedDeduplicator(await this.#readDigests(), topics) : undefined
    const hasGap = !hasSession && (this.#wasSubscribed || this.#options.journal.head > 0)
    if (hasGap) this.#writer.write(gapMarker, 'now', ignore)
    const refused = await connection.subscribe(topics, 1, sendsRetained)
    if (refused.length > 0) throw new Error(`the broker refused push's subscription to ${refused.join(', ')}`)
    this.#deduplicator?.open()
    this.#wasSubscribed = true
    // Only after the gap marker is in the journal: otherwise the next start would miss the gap.
    if (hasGap) this.#writer.whenWritten(() => void this.#remember(connection))
    else await this.#remember(connection)
  }

  #readDigests(): Promise<Digests> {
    const { journal, log } = this.#options
    return readDigests(journal, this.#topics).catch(error => {
      log.warn({ err: error }, 'failed to read retained messages from the journal; all of them become events again')
      return new Map()
    })
  }

  /** Appends retained messages that were published with QoS 0 while push was disconnected. */
  async #reconcileRetained(connection: Connection): Promise<void> {
    const { journal, openProbe, log } = this.#options
    const reconciler = new RetainedReconciler({
      ...{ journal, topics: this.#topics, inbound: connection },
      open: onMessage => openProbe(connection.profile, onMessage),
      onMissed: message => this.#writer.write(message, 'now', ignore),
    })
    try {
      await this.#deliveries.caughtUp(connection)
      this.#reconciler = reconciler
      await new Promise<void>(resolve => this.#writer.whenWritten(resolve))
      if (!this.#stopped && !connection.closed) await reconciler.run()
    } catch (error) {
      if (this.#stopped || connection.closed) return
      log.warn({ err: error }, 'failed to compare retained messages; new subscribers may get outdated ones')
    } finally {
      if (this.#reconciler === reconciler) this.#reconciler = undefined
    }
  }

  async #remember({ profile }: Connection): Promise<void> {
    const { clientId, remembered, log } = this.#options
    await remembered.save({ clientId, dialect: profile.name, topics: this.#topics }).catch(error => {
      log.warn({ err: error }, 'failed to store the subscriptions of push; it subscribes again after a restart')
    })
  }

  #receive(received: ReceivedMessage, connection: Connection): void {
    const acknowledge = this.#deliveries.receive(received, connection)
    if (!acknowledge) return
    // Only who asked may read responses.
    if (isResponseTopic(received.topic)) {
      acknowledge()
      return
    }
    const { retainAsPublished } = connection.profile
    const pending = this.#options.pending.take(received, retainAsPublished)
    if (!pending && this.#deduplicator?.has(received)) {
      this.#writer.whenWritten(acknowledge)
      return
    }
    if (received.retain || !retainAsPublished) this.#reconciler?.changed(received.topic)
    const message = pending ? restored(received, pending.message, connection.profile) : received
    this.#writer.write(
      message,
      'now',
      pending
        ? event => {
            acknowledge()
            pending.arrive(event)
          }
        : acknowledge,
    )
  }

  #onPressure(isHigh: boolean): void {
    this.#isPaused = isHigh
    if (isHigh) this.#connection?.pause()
    else if (!this.#stopped) this.#connection?.resume()
    if (this.stuck) this.#onDrained?.()
  }
}

/** The message that the broker returned, with what its version of the protocol does not return. */
function restored(
  received: Message,
  { retain, properties, expires }: Message,
  { retainAsPublished, protocolVersion }: ProtocolProfile,
): Message {
  const message = retainAsPublished ? received : { ...received, retain }
  return protocolVersion === 5 ? message : { ...message, properties, expires }
}

function sameSet(some: readonly string[], others: readonly string[]): boolean {
  const [left, right] = [new Set(some), new Set(others)]
  return left.size === right.size && some.every(topic => right.has(topic))
}

function ignore(): void {}
