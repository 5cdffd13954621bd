import { Readable } from 'node:stream'
import type { Aedes, AedesPublishPacket, Client, PublishPacket, Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import type { Logger } from '../log.js'
import type { Base } from './base.js'
import { CatchUps } from './catch-ups.js'
import { Grants, type GrantsOptions, noSubscription } from './grants.js'
import { Owners } from './owners.js'
import { QueueIndex } from './queue-index.js'
import { Retained } from './retained.js'
import type { RetainedBounds } from './retained-quota.js'
import { type SessionLimits, Sessions } from './sessions.js'
import { isTopicFilter, type TopicBounds } from './topic-filter.js'

type Session = Persistence.Session
type QueueSubscription = Persistence.QueueSubscription
type QoS = QueueSubscription['qos']

/** Bounds of what is kept. */
export interface StoreLimits extends SessionLimits, TopicBounds, RetainedBounds {
  /** How many topic filters one client may be subscribed to at a time. */
  readonly maxSubscriptions: number
}

/** What a store is made of. */
export interface StoreOptions {
  readonly base: Base
  readonly limits: StoreLimits
  readonly maySubscribe?: NonNullable<GrantsOptions['maySubscribe']>
  readonly log: Logger
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
  readonly owners: Owners
  readonly sessions: Sessions
  readonly retained: Retained
  /** The quota key of the message that is being published. */
  publisher = ''
  readonly #limits: StoreLimits
  readonly #stored: Base['sessions']
  readonly #base: Persistence
  readonly #subscriptions: Base['subscriptions']
  readonly #onError: (error: unknown) => void
  readonly #index = new QueueIndex()
  /** The arrays of filters that are stored, or about to be. */
  readonly #written = new WeakMap<readonly Subscription[], Promise<void>>()
  /** The last write to each session that has not finished. */
  readonly #tails = new Map<string, Promise<unknown>>()

  constructor({ base, limits, maySubscribe, log, onError }: StoreOptions) {
    this.grants = new Grants({ ...limits, ...(maySubscribe && { maySubscribe }) })
    this.owners = new Owners({ ownerOf: id => this.sessions.ownerOf(id), end: id => this.#end(id) })
    this.sessions = new Sessions({ base, limits, owners: this.owners, log, onError })
    this.retained = new Retained({ storage: base.retained, bounds: limits, log })
    this.#limits = limits
    this.#stored = base.sessions
    this.#base = base.persistence
    this.#subscriptions = base.subscriptions
    this.#onError = onError
    this.catchUps = new CatchUps(client => this.#base.outgoingStream(client))
  }

  async setup(broker: Aedes): Promise<void> {
    await this.#base.setup(broker)
    await this.retained.load()
    for (const session of this.#stored) this.#index.add(session.id, await this.#readSubscriptions(session))
  }

  /** Ends the sessions that have been without their client for too long. */
  async expire(): Promise<void> {
    for (const id of this.sessions.expired()) await this.#end(id)
  }

  /** Ends a session that has no client. */
  async #end(id: string): Promise<void> {
    await this.cleanSubscriptions({ id })
    await this.#base.cleanIncoming({ id })
  }

  /** Clears RETAIN of a message that is not stored: push and bridges, which get it as it was published, take it for no state either. */
  async storeRetained(packet: AedesPublishPacket): Promise<void> {
    if (!(await this.retained.store(ownPayload(packet), this.publisher))) packet.retain = false
  }

  /** Nothing: subscribers get retained messages from `RetainedDelivery`. */
  createRetainedStreamCombi(): Readable {
    return Readable.from([])
  }

  /** Stores what is granted of `subscriptions`: once, though Aedes comes with the whole array for each filter in it. */
  addSubscriptions(client: Session, subscriptions: readonly Subscription[]): Promise<void> {
    let stored = this.#written.get(subscriptions)
    if (!stored) {
      const granted = subscriptions.filter(({ topic }) => this.grants.grant(client, topic))
      stored = this.#inTurn(client, async () => {
        await this.#subscriptions.add(client, granted)
        this.#index.add(client.id, granted)
      })
      this.#written.set(subscriptions, stored)
    }
    return stored
  }

  removeSubscriptions(client: Session, filters: readonly string[]): Promise<void> {
    return this.#inTurn(client, async () => {
      this.#index.remove(client.id, filters)
      await this.#subscriptions.remove(client, filters)
    })
  }

  /** Ends the session, with all that waits in it: Aedes calls this for a client that wants none [MQTT-3.1.2-6]. */
  cleanSubscriptions(client: Session): Promise<void> {
    return this.#inTurn(client, async () => {
      this.#index.removeAll(client.id)
      await this.sessions.remove(client.id)
      await this.#subscriptions.clear(client)
      for await (const packet of this.#base.outgoingStream(client)) {
        // The base clears by packet identifier, which what was never sent has not got.
        const named = { ...packet, messageId: packet.messageId || 1 }
        await this.#base.outgoingUpdate(client, named)
        await this.#base.outgoingClearMessageId(client, named)
      }
    })
  }

  /** Asked by Aedes when a client wants its session, which is made where there is none. */
  async subscriptionsByClient(client: Session): Promise<Subscription[]> {
    const known = this.sessions.has(client.id)
    this.sessions.open(client.id)
    const subscriptions = await this.#readSubscriptions(client)
    return known && subscriptions.length === 0 ? [{ topic: noSubscription, qos: 0 }] : subscriptions
  }

  /** Without what may have been stored before there were limits: Aedes would refuse the client for it. */
  async #readSubscriptions(client: Session): Promise<Subscription[]> {
    const stored = await this.#subscriptions.read(client)
    return stored.filter(({ topic }) => isTopicFilter(topic, this.#limits)).slice(0, this.#limits.maxSubscriptions)
  }

  async subscriptionsByTopic(topic: string): Promise<QueueSubscription[]> {
    return this.#index.match(topic)
  }

  async outgoingEnqueueCombi(subscriptions: readonly QueueSubscription[], packet: AedesPublishPacket): Promise<void> {
    await Promise.all(subscriptions.map(subscription => this.outgoingEnqueue(subscription, packet)))
  }

  async outgoingEnqueue(
    subscription: { clientId: string; qos?: QoS; rap?: boolean },
    packet: AedesPublishPacket,
  ): Promise<void> {
    // The lower of what was published and what was subscribed to [MQTT-3.8.4-6]; not as a retained message, because the
    // subscription was there first [MQTT-3.3.1-9], except for a bridge.
    const qos = lower(packet.qos, subscription.qos ?? 2)
    const retain = packet.retain && subscription.rap === true
    if (!this.sessions.admit(subscription.clientId)) return
    await this.#base.outgoingEnqueue(subscription, { ...ownPayload(packet), qos, retain })
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
      if (!(error instanceof Error && error.message === 'no such packet')) throw error
      // A PUBREC for what is not in the queue, such as a retained message: PUBREL is the answer all the same.
      if (!packet.brokerId) return
      // The subscription is younger than the message, which therefore was not queued for it; or there was no room.
      if (!this.sessions.admit(client.id)) throw new Error('too many messages wait for their acknowledgement')
      await this.#base.outgoingEnqueue({ clientId: client.id }, packet)
      await this.#base.outgoingUpdate(client, packet)
    }
  }

  /** Runs `write` when the earlier ones for this session are done: what is awaited together may else finish in any order. */
  async #inTurn<T>(client: Session, write: () => Promise<T>): Promise<T> {
    const earlier = this.#tails.get(client.id)
    const current = earlier ? earlier.then(write, write) : write()
    this.#tails.set(client.id, current)
    try {
      return await current
    } finally {
      if (this.#tails.get(client.id) === current) this.#tails.delete(client.id)
    }
  }

  async outgoingClearMessageId(client: Session, packet: AedesPublishPacket): Promise<AedesPublishPacket | undefined> {
    // Without an id there is nothing to clear; in memory it would be the first message that has none yet.
    if (packet.messageId === undefined) return undefined
    const cleared = await this.#inTurn(client, () => this.#base.outgoingClearMessageId(client, packet))
    if (cleared) this.sessions.release(client.id)
    return cleared
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
