import { Readable } from 'node:stream'
import type { Aedes, AedesPublishPacket, Client, PublishPacket, Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import { CatchUps } from './catch-ups.js'
import { FilterIndex } from './filter-index.js'
import { Grants } from './grants.js'
import { isTopicFilter } from './topic-filter.js'

type Session = Persistence.Session
type QueueSubscription = Persistence.QueueSubscription
type QoS = QueueSubscription['qos']

/** Bounds of what is kept. */
export interface StoreLimits {
  /** How many topic filters one client may be subscribed to at a time. */
  readonly maxSubscriptions: number
}

/** What a store is made of. */
export interface StoreOptions {
  /** Where sessions and retained messages are kept: in memory or on disk. */
  readonly base: Persistence
  /** The sessions that `base` holds from an earlier run. */
  readonly sessions: readonly Session[]
  readonly limits: StoreLimits
  readonly onError: (error: unknown) => void
}

/**
 * What Aedes keeps: sessions, queues for them, retained messages, wills. The keeping is that of `base`; this puts right
 * what would lose or disorder messages on the way there:
 *
 * - which sessions a message is queued for is found here, because `aedes-persistence-level` forgets one of two
 *   overlapping subscriptions of a session, and queues for QoS 0;
 * - a session's messages are written one after the other, and a session that comes back gets its queue to the end before
 *   it gets anything new (see `CatchUps`);
 * - retained messages follow MQTT's rules on `$` topics and empty levels, and `$SYS` stays in memory;
 * - an error where Aedes listens to none is told to `onError` and goes no further.
 */
export class Store {
  readonly catchUps: CatchUps
  readonly grants: Grants
  readonly #limits: StoreLimits
  readonly #base: Persistence
  readonly #sessions: readonly Session[]
  readonly #onError: (error: unknown) => void
  readonly #queued = new FilterIndex<QueueSubscription>()
  readonly #subscriptions = new Map<string, Map<string, QueueSubscription>>()
  readonly #system = new Map<string, AedesPublishPacket>()
  /** The arrays of filters that are stored, or about to be. */
  readonly #stored = new WeakMap<readonly Subscription[], Promise<void>>()
  /** The last write to each session's queue or subscriptions that has not finished. */
  readonly #tails = new Map<string, Promise<void>>()

  constructor({ base, sessions, limits, onError }: StoreOptions) {
    this.grants = new Grants(limits.maxSubscriptions)
    this.#limits = limits
    this.#base = base
    this.#sessions = sessions
    this.#onError = onError
    this.catchUps = new CatchUps(client => base.outgoingStream(client))
  }

  async setup(broker: Aedes): Promise<void> {
    await this.#base.setup(broker)
    for (const session of this.#sessions) this.#index(session, await this.subscriptionsByClient(session))
  }

  async storeRetained(packet: AedesPublishPacket): Promise<void> {
    if (packet.topic.startsWith('$SYS/')) this.#system.set(packet.topic, packet)
    else await this.#base.storeRetained(ownPayload(packet))
  }

  createRetainedStreamCombi(filters: readonly string[]): Readable {
    return Readable.from(this.#retained(filters))
  }

  async *#retained(filters: readonly string[]): AsyncGenerator<AedesPublishPacket> {
    const wanted = new FilterIndex<true>()
    for (const filter of filters) wanted.add(filter, true)
    const matches = (topic: string): boolean => wanted.match(topic).length > 0
    for (const packet of this.#system.values()) if (matches(packet.topic)) yield packet
    if (filters.every(filter => filter.startsWith('$SYS/'))) return
    try {
      for await (const packet of this.#base.createRetainedStream('#')) if (matches(packet.topic)) yield packet
    } catch (error) {
      this.#onError(error)
    }
  }

  /** Stores what is granted of `subscriptions`: once, though Aedes comes with the whole array for each filter in it. */
  addSubscriptions(client: Session, subscriptions: readonly Subscription[]): Promise<void> {
    let stored = this.#stored.get(subscriptions)
    if (!stored) {
      const granted = subscriptions.filter(({ topic }) => this.grants.grant(client, topic))
      stored = this.#inTurn(client, async () => {
        await this.#base.addSubscriptions(client, granted)
        this.#index(client, granted)
      })
      this.#stored.set(subscriptions, stored)
    }
    return stored
  }

  removeSubscriptions(client: Session, filters: readonly string[]): Promise<void> {
    return this.#inTurn(client, async () => {
      this.#unindex(client, filters)
      await this.#base.removeSubscriptions(client, filters)
    })
  }

  cleanSubscriptions(client: Session): Promise<void> {
    return this.#inTurn(client, async () => {
      this.#unindex(client, [...(this.#subscriptions.get(client.id)?.keys() ?? [])])
      await this.#base.cleanSubscriptions(client)
    })
  }

  /** Without what may have been stored before there were limits: Aedes would refuse the client for it. */
  async subscriptionsByClient(client: Session): Promise<Subscription[]> {
    const stored = await this.#base.subscriptionsByClient(client)
    return stored.filter(({ topic }) => isTopicFilter(topic)).slice(0, this.#limits.maxSubscriptions)
  }

  /** Each session that the message must be queued for, once, with the highest QoS of its filters that match. */
  async subscriptionsByTopic(topic: string): Promise<QueueSubscription[]> {
    const bySession = new Map<string, QueueSubscription>()
    for (const subscription of this.#queued.match(topic)) {
      const other = bySession.get(subscription.clientId)
      if (!other || other.qos < subscription.qos) bySession.set(subscription.clientId, subscription)
    }
    return [...bySession.values()]
  }

  async outgoingEnqueueCombi(subscriptions: readonly QueueSubscription[], packet: AedesPublishPacket): Promise<void> {
    await Promise.all(subscriptions.map(subscription => this.outgoingEnqueue(subscription, packet)))
  }

  async outgoingEnqueue(subscription: { clientId: string; qos?: QoS }, packet: AedesPublishPacket): Promise<void> {
    // The lower of what was published and what was subscribed to [MQTT-3.8.4-6]; not as a retained message, because the
    // subscription was there first [MQTT-3.3.1-9].
    const qos = lower(packet.qos, subscription.qos ?? 2)
    await this.#base.outgoingEnqueue(subscription, { ...ownPayload(packet), qos, retain: false })
  }

  outgoingUpdate(client: Session, packet: AedesPublishPacket): Promise<void> {
    const updated = this.#inTurn(client, () => this.#update(client, packet))
    // A PUBREC brings a PUBREL here that has no broker id, and does not come from the queue.
    return packet.brokerId ? updated.finally(() => this.catchUps.updated(client)) : updated
  }

  async #update(client: Session, packet: AedesPublishPacket): Promise<void> {
    try {
      await this.#base.outgoingUpdate(client, packet)
    } catch (error) {
      if (!(error instanceof Error && error.message === 'no such packet') || !packet.brokerId) throw error
      // The subscription is younger than the message, which therefore was not queued for it.
      await this.#base.outgoingEnqueue({ clientId: client.id }, packet)
      await this.#base.outgoingUpdate(client, packet)
    }
  }

  /** Runs `write` when the earlier ones for this session are done: what is awaited together may else finish in any order. */
  async #inTurn(client: Session, write: () => Promise<void>): Promise<void> {
    const earlier = this.#tails.get(client.id)
    const current = earlier ? earlier.then(write, write) : write()
    this.#tails.set(client.id, current)
    try {
      await current
    } finally {
      if (this.#tails.get(client.id) === current) this.#tails.delete(client.id)
    }
  }

  async outgoingClearMessageId(client: Session, packet: AedesPublishPacket): Promise<AedesPublishPacket | undefined> {
    // Without an id there is nothing to clear; in memory it would be the first message that has none yet.
    return packet.messageId === undefined ? undefined : await this.#base.outgoingClearMessageId(client, packet)
  }

  outgoingStream(client: Client): Readable {
    return Readable.from(this.catchUps.queue(client))
  }

  /** Stores that the packet's identifier is in use. Not the payload, which nobody asks for: it may be of megabytes. */
  incomingStorePacket(client: Session, packet: PublishPacket): Promise<void> {
    return this.#base.incomingStorePacket(client, { ...packet, payload: '' })
  }

  /** Whether a message of QoS 2 with this identifier has been stored, and waits for its PUBREL. */
  async hasIncoming(client: Session, packet: PublishPacket): Promise<boolean> {
    return this.#base.incomingGetPacket(client, packet).then(
      () => true,
      () => false,
    )
  }

  incomingGetPacket(client: Session, packet: PublishPacket): Promise<AedesPublishPacket> {
    return this.#base.incomingGetPacket(client, packet)
  }

  incomingDelPacket(client: Session, packet: PublishPacket): Promise<void> {
    return this.#base.incomingDelPacket(client, packet)
  }

  cleanIncoming(client: Session): Promise<void> {
    return this.#base.cleanIncoming(client)
  }

  putWill(client: Session, will: PublishPacket): Promise<void> {
    return this.#base.putWill(client, will)
  }

  async delWill(client: Session): Promise<PublishPacket | undefined> {
    try {
      return await this.#base.delWill(client)
    } catch (error) {
      this.#onError(error)
      return undefined
    }
  }

  streamWill(brokers: { readonly [id: string]: number }): Readable {
    return this.#base.streamWill(brokers)
  }

  #index(client: Session, subscriptions: readonly Subscription[]): void {
    this.#unindex(
      client,
      subscriptions.map(({ topic }) => topic),
    )
    for (const { topic, qos } of subscriptions) {
      if (qos === 0) continue
      const own = this.#subscriptions.get(client.id) ?? new Map<string, QueueSubscription>()
      const subscription = { clientId: client.id, topic, qos }
      this.#subscriptions.set(client.id, own.set(topic, subscription))
      this.#queued.add(topic, subscription)
    }
  }

  #unindex(client: Session, filters: readonly string[]): void {
    const own = this.#subscriptions.get(client.id)
    if (!own) return
    for (const filter of filters) {
      const subscription = own.get(filter)
      if (subscription) this.#queued.remove(filter, subscription)
      own.delete(filter)
    }
    if (own.size === 0) this.#subscriptions.delete(client.id)
  }
}

function lower(a: QoS, b: QoS): QoS {
  return a < b ? a : b
}

/** With a payload of its own: as it comes, it may be a slice that keeps a whole 64 KiB read in memory. */
function ownPayload(packet: AedesPublishPacket): AedesPublishPacket {
  const { payload } = packet
  if (typeof payload === 'string' || payload.buffer.byteLength <= 2 * payload.length) return packet
  return { ...packet, payload: Buffer.from(payload) }
}
