import { randomInt } from 'node:crypto'
import { Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import type { Aedes, AedesPublishPacket, Client, PublishPacket, Subscription } from 'aedes'
import type Persistence from 'aedes-persistence/asyncPersistence.js'
import type { Logger } from '../../base/log.js'
import { TimeSlicer } from '../../base/time-slicer.js'
import { isTopicFilter } from '../../topics/topic-syntax.js'
import { ClientIdRegistry } from './client-id-registry.js'
import { type Acknowledgement, maxPacketId, PacketIds } from './packet-ids.js'
import { QueueIndex } from './queue-index.js'
import { Retained } from './retained.js'
import { type RetainedBounds, retainedSize } from './retained-quota.js'
import { detachPayload, SessionEnqueuer } from './session-enqueuer.js'
import { loadSessions } from './session-loader.js'
import { SessionQueueReplay } from './session-queue-replay.js'
import { noSuchPacket, type SessionQueues } from './session-queues.js'
import { type SessionLimits, Sessions, type SessionsOptions } from './sessions.js'
import type { StorageBackend } from './storage-backend.js'
import {
  type FilterBounds,
  noSubscription,
  SubscriptionLimits,
  type SubscriptionLimitsOptions,
} from './subscription-limits.js'
import type { PendingWrite } from './unwritten-messages.js'

type Session = Persistence.Session
type QueueSubscription = Persistence.QueueSubscription
type QoS = QueueSubscription['qos']

/** Bounds of what is kept. */
export interface StoreLimits extends SessionLimits, FilterBounds, RetainedBounds {}

/** Storage, bounds and callbacks of a store. */
export interface StoreOptions extends Pick<SessionsOptions, 'onEnded' | 'onDropped'> {
  readonly base: StorageBackend
  readonly limits: StoreLimits
  readonly maySubscribe?: SubscriptionLimitsOptions['maySubscribe']
  readonly holderOf?: SubscriptionLimitsOptions['holderOf']
  /** The gateway's; left out for one of its own. */
  readonly slicer?: TimeSlicer | undefined
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
 *   it gets anything new (see `SessionQueueReplay`);
 * - retained messages follow MQTT's rules on `$` topics and empty levels, and `$SYS` stays in memory;
 * - an error where Aedes listens to none is told to `onError` and goes no further.
 */
export class Store {
  readonly queueReplay: SessionQueueReplay
  readonly subscriptionLimits: SubscriptionLimits
  readonly clientIds: ClientIdRegistry
  readonly sessions: Sessions
  readonly retained: Retained
  /** By client: the packet identifiers of messages to it that are in use. */
  readonly #packetIds = new WeakMap<object, PacketIds>()
  /** The quota key of the message that is being published. */
  publisher = ''
  #retainedWrite: Pick<PendingWrite, 'written' | 'bytes'> | undefined
  readonly #limits: StoreLimits
  readonly #stored: StorageBackend
  readonly #base: Persistence
  readonly #subscriptions: StorageBackend['subscriptions']
  readonly #queues: SessionQueues
  readonly #enqueuer: SessionEnqueuer
  readonly #removeSession: StorageBackend['removeSession']
  readonly #slicer: TimeSlicer
  readonly #onEnded: SessionsOptions['onEnded']
  readonly #log: Logger
  readonly #onError: (error: unknown) => void
  readonly #index = new QueueIndex()
  /** The arrays of filters that are stored, or about to be. */
  readonly #written = new WeakMap<readonly Subscription[], Promise<void>>()
  /** The last write to each session that has not finished. */
  readonly #tails = new Map<string, Promise<unknown>>()

  constructor({
    base,
    limits,
    maySubscribe,
    holderOf,
    slicer = new TimeSlicer(),
    log,
    onError,
    ...hooks
  }: StoreOptions) {
    this.subscriptionLimits = new SubscriptionLimits({
      ...limits,
      maySubscribe,
      holderOf,
      fitsSession: ({ id }, bytes) => this.sessions.fits(id, bytes),
    })
    this.clientIds = new ClientIdRegistry({ ownerOf: id => this.sessions.ownerOf(id), end: id => this.#end(id) })
    this.sessions = new Sessions({ base, limits, end: id => this.#end(id), log, onError, ...hooks })
    this.retained = new Retained({ storage: base.retained, bounds: limits, log })
    this.#limits = limits
    this.#stored = base
    this.#base = base.persistence
    this.#subscriptions = base.subscriptions
    this.#queues = base.queues
    this.#enqueuer = new SessionEnqueuer({ queues: base.queues, sessions: this.sessions, slicer })
    this.#removeSession = id => base.removeSession(id)
    this.#slicer = slicer
    this.#onEnded = hooks.onEnded
    this.#log = log
    this.#onError = onError
    this.queueReplay = new SessionQueueReplay(
      client => this.#readQueue(client),
      client => this.packetIdsOf(client),
    )
  }

  async setup(broker: Aedes): Promise<void> {
    await this.#base.setup(broker)
    await this.retained.load()
    await loadSessions({
      base: this.#stored,
      sessions: this.sessions,
      index: this.#index,
      slicer: this.#slicer,
      withinBounds: subscriptions => this.#withinBounds(subscriptions),
      log: this.#log,
    })
  }

  /** Ends the sessions that have been without their client for too long. */
  async expire(): Promise<void> {
    await this.#slicer.next('sessions')
    for (const _ of this.sessions.touch()) if (this.#slicer.isOver) await this.#slicer.next('sessions')
    for (const id of this.sessions.expired()) {
      this.#onEnded?.('expired')
      await this.#end(id)
      await this.#slicer.next('sessions')
    }
  }

  /** Ends a session, with all that waits in it. */
  async #end(id: string): Promise<void> {
    this.sessions.remove(id)
    await this.#inTurn({ id }, async () => {
      this.#index.removeAll(id)
      await this.#removeSession(id)
    })
  }

  /** Clears RETAIN of a message that is not stored: push and bridges, which get it as it was published, take it for no state either. */
  async storeRetained(packet: AedesPublishPacket): Promise<void> {
    const { isKept, written } = this.retained.store(detachPayload(packet), this.publisher)
    if (!isKept) packet.retain = false
    if (written) this.#retainedWrite = { written, bytes: retainedSize(packet) }
  }

  /** Nothing: subscribers get retained messages from `RetainedDelivery`. */
  createRetainedStreamCombi(): Readable {
    return Readable.from([])
  }

  /** Stores what is granted of `subscriptions`: once, though Aedes comes with the whole array for each filter in it. */
  addSubscriptions(client: Session, subscriptions: readonly Subscription[]): Promise<void> {
    let stored = this.#written.get(subscriptions)
    if (!stored) {
      const granted = subscriptions.filter(({ topic }) => this.subscriptionLimits.grant(client, topic))
      stored = this.#inTurn(client, async () => {
        await this.#subscriptions.add(client, granted)
        this.sessions.grow(client.id, this.#index.add(client.id, granted))
      })
      this.#written.set(subscriptions, stored)
    }
    return stored
  }

  removeSubscriptions(client: Session, filters: readonly string[]): Promise<void> {
    return this.#inTurn(client, async () => {
      this.sessions.grow(client.id, -this.#index.remove(client.id, filters))
      await this.#subscriptions.remove(client, filters)
    })
  }

  /** Ends the session, with all that waits in it: Aedes calls this for a client that wants none [MQTT-3.1.2-6]. */
  async cleanSubscriptions({ id }: Session): Promise<void> {
    if (this.sessions.has(id)) await this.#end(id)
    // One after the other, so that each of several connections with the same client id gets its CONNACK before the next one ends it.
    else await this.#inTurn({ id }, () => turn())
  }

  /** Asked by Aedes when a client wants its session, which is made where there is none. */
  async subscriptionsByClient(client: Session): Promise<Subscription[]> {
    const known = this.sessions.open(client.id)
    const subscriptions = await this.#inTurn(client, () => this.#readSubscriptions(client))
    return known && subscriptions.length === 0 ? [{ topic: noSubscription, qos: 0 }] : subscriptions
  }

  /** Without what may have been stored before there were limits: Aedes would refuse the client for it. */
  async #readSubscriptions(client: Session): Promise<Subscription[]> {
    const stored = await this.#subscriptions.read(client)
    return this.#withinBounds(stored)
  }

  #withinBounds(subscriptions: readonly Subscription[]): Subscription[] {
    const { maxSubscriptions, maxSubscriptionBytes } = this.#limits
    let bytes = 0
    return subscriptions
      .filter(({ topic }) => isTopicFilter(topic, this.#limits))
      .slice(0, maxSubscriptions)
      .filter(({ topic }) => {
        bytes += Buffer.byteLength(topic)
        return bytes <= maxSubscriptionBytes
      })
  }

  async subscriptionsByTopic(topic: string): Promise<QueueSubscription[]> {
    return this.#index.match(topic)
  }

  outgoingEnqueueCombi(subscriptions: readonly QueueSubscription[], packet: AedesPublishPacket): Promise<void> {
    return this.#enqueuer.enqueue(subscriptions, packet)
  }

  outgoingEnqueue(
    subscription: { clientId: string; qos?: QoS; rap?: boolean },
    packet: AedesPublishPacket,
  ): Promise<void> {
    return this.#enqueuer.enqueue([subscription], packet)
  }

  /** Writes of the message that was stored last, once: it may leave, and is acknowledged when they are done. */
  takeWrites(): PendingWrite | undefined {
    const queued = this.#enqueuer.takeWrites()
    const retained = this.#retainedWrite
    this.#retainedWrite = undefined
    if (!retained) return queued
    if (!queued) return { ...retained, isForMany: false }
    const written = Promise.all([queued.written, retained.written]).then(() => {})
    return { written, bytes: queued.bytes + retained.bytes, isForMany: queued.isForMany }
  }

  /**
   * The packet identifiers of messages to a client. Without a session they begin with 1; with one, anywhere: a client that comes back may still
   * hold identifiers of retained messages of QoS 2, which are in no queue, and would take another message for a repetition.
   */
  packetIdsOf(client: Pick<Client, 'clean'>): PacketIds {
    let ids = this.#packetIds.get(client)
    if (!ids) {
      ids = new PacketIds(client.clean ? 1 : randomInt(1, maxPacketId + 1))
      this.#packetIds.set(client, ids)
    }
    return ids
  }

  /** Notes an acknowledgement of a client; returns whether it is that for which the message waits. */
  acknowledge(client: object, id: number, acknowledgement: Acknowledgement): boolean {
    return this.#packetIds.get(client)?.acknowledge(id, acknowledgement) ?? true
  }

  outgoingUpdate(client: Session, packet: AedesPublishPacket): Promise<void> {
    const updated = this.#inTurn(client, () => this.#update(client, packet))
    // A PUBREC brings a PUBREL here that has no broker id, and does not come from the queue.
    return packet.brokerId ? updated.finally(() => this.queueReplay.updated(client)) : updated
  }

  async #update(client: Session, packet: AedesPublishPacket): Promise<void> {
    try {
      this.sessions.growQueue(client.id, await this.#queues.update(client.id, packet))
    } catch (error) {
      if (!(error instanceof Error && error.message === noSuchPacket().message)) throw error
      // A PUBREC for what is not in the queue, such as a retained message: PUBREL is the answer all the same.
      if (!packet.brokerId) return
      // The subscription is younger than the message, which therefore was not queued for it; or there was no room.
      const message = this.#queues.prepare(detachPayload(packet))
      if (!this.sessions.admitMessage(client.id, message.bytes, message.topic))
        throw new Error('too many messages wait for their acknowledgement')
      await message.add([client.id])
      this.sessions.growQueue(client.id, await this.#queues.update(client.id, packet))
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
    const { messageId } = packet
    if (messageId === undefined) return undefined
    this.#packetIds.get(client)?.release(messageId)
    const cleared = await this.#inTurn(client, () => this.#queues.clear(client.id, messageId))
    if (cleared) this.sessions.release(client.id, cleared.bytes)
    return cleared?.packet
  }

  async *#readQueue({ id }: Client): AsyncGenerator<AedesPublishPacket> {
    await this.#enqueuer.bringForward(id)
    yield* this.#queues.read(id)
  }

  outgoingStream(client: Client): Readable {
    return Readable.from(this.queueReplay.queue(client))
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
