import { randomInt } from 'node:crypto'
import { Readable } from 'node:stream'
import { setImmediate as nextTick } from 'node:timers/promises'
import type { Aedes, AedesPublishPacket, Client, PublishPacket } from 'aedes'
import type { Logger } from '../../base/log.js'
import { TimeSlicer } from '../../base/time-slicer.js'
import { ClientIdRegistry } from './client-id-registry.js'
import { EarlierWills } from './earlier-wills.js'
import { type Acknowledgement, maxPacketId, PacketIds } from './packet-ids.js'
import { QueueExpiry } from './queue-expiry.js'
import { QueueIndex, type SessionSubscription } from './queue-index.js'
import { Retained } from './retained.js'
import { type RetainedBounds, retainedSize } from './retained-quota.js'
import { detachPayload, SessionEnqueuer } from './session-enqueuer.js'
import { loadSessions } from './session-loader.js'
import { SessionQueueReplay } from './session-queue-replay.js'
import { noSuchPacket } from './session-queues.js'
import { type SessionLimits, Sessions, type SessionsOptions } from './sessions.js'
import type { SessionShares } from './shared-subscriptions.js'
import type { SessionRecord, StorageBackend, StoredSubscription, StoredWill, Will } from './storage-backend.js'
import {
  type FilterBounds,
  noSubscription,
  SubscriptionLimits,
  type SubscriptionLimitsOptions,
} from './subscription-limits.js'
import type { PendingWrite } from './unwritten-messages.js'

interface Session {
  readonly id: string
}

/** A connection with a will. */
interface WillOwner extends Session {
  /** Whether its connection is over. */
  readonly closed: boolean
}

/** Aedes' publishing of wills. */
type WillPublisher = Pick<Aedes, 'authorizePublish' | 'publish'>

export interface StoreLimits extends SessionLimits, FilterBounds, RetainedBounds {}

export interface StoreOptions extends Pick<SessionsOptions, 'onEnded' | 'onDropped'> {
  readonly storage: StorageBackend
  readonly limits: StoreLimits
  readonly maySubscribe?: SubscriptionLimitsOptions['maySubscribe']
  readonly holderOf?: SubscriptionLimitsOptions['holderOf']
  /** The shared subscriptions of connections and sessions. Default: of sessions alone. */
  readonly shared?: SessionShares | undefined
  /** Default: one of its own. */
  readonly slicer?: TimeSlicer | undefined
  readonly log: Logger
  readonly onError: (error: unknown) => void
}

/**
 * Aedes' persistence: sessions, queues, retained messages, wills. Subscriptions, and packet identifiers of QoS 2, are in memory, and stored
 * for the next run. A session's messages are written in order, and a returning client gets its whole queue before live messages
 * (`SessionQueueReplay`). Errors that Aedes ignores go to `onError`.
 */
export class Store {
  readonly queueReplay: SessionQueueReplay
  readonly subscriptionLimits: SubscriptionLimits
  readonly clientIds: ClientIdRegistry
  readonly sessions: Sessions<Client>
  readonly retained: Retained
  readonly #packetIds = new WeakMap<object, PacketIds>()
  /** Quota key of the message that is being published. */
  publisher = ''
  /** Client id of its publisher; `undefined` for the gateway itself. */
  publisherId: string | undefined
  /** Its packet identifier, if that is to be stored with it. */
  publishedId: number | undefined
  #retainedWrite: Pick<PendingWrite, 'written' | 'bytes'> | undefined
  readonly #limits: StoreLimits
  #brokerId = ''
  /** By client id: packet identifiers of QoS 2 that wait for PUBREL. */
  readonly #incoming: Map<string, PacketIds>
  readonly #storage: StorageBackend
  readonly #enqueuer: SessionEnqueuer
  readonly #queueExpiry: QueueExpiry
  readonly #slicer: TimeSlicer
  readonly #earlierWills: EarlierWills
  /** By client id: the connection whose will is stored. */
  readonly #willOwners = new Map<string, WillOwner>()
  #broker: WillPublisher | undefined
  readonly #log: Logger
  readonly #onError: (error: unknown) => void
  readonly #index: QueueIndex
  /** Sessions that the last message matched. */
  #matched = 0
  /** The last unfinished write to each session. */
  readonly #tails = new Map<string, Promise<unknown>>()
  /** Messages that are being cleared, by packet identifier and client id, each with who acknowledged it first. */
  readonly #clearing = new Map<string, { readonly client: Session; readonly cleared: Promise<unknown> }>()

  constructor({
    storage,
    limits,
    maySubscribe,
    holderOf,
    shared,
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
    this.sessions = new Sessions<Client>({
      storage: { keepSession: (id, session) => this.#keepSession(id, session) },
      ...{ limits, slicer, log, onError, ...hooks },
      end: id => this.#end(id),
    })
    this.retained = new Retained({ storage: storage.retained, bounds: limits, slicer, log, onError })
    this.#index = new QueueIndex(shared)
    this.#limits = limits
    this.#storage = storage
    this.#incoming = new Map(storage.incoming)
    const { queues } = storage
    this.#queueExpiry = new QueueExpiry({ queues, sessions: this.sessions, slicer, onError })
    const onExpiring = (id: string, expires: number): void => this.#queueExpiry.queued(id, expires)
    this.#enqueuer = new SessionEnqueuer({ queues, sessions: this.sessions, slicer, onExpiring })
    this.#slicer = slicer
    this.#log = log
    this.#onError = onError
    this.#earlierWills = new EarlierWills({
      ...{ storage, slicer, onError },
      hasSession: id => this.sessions.has(id),
      publish: async will => {
        if (this.#broker) await publishWill(this.#broker, will)
      },
    })
    this.queueReplay = new SessionQueueReplay(client => this.#readQueue(client))
  }

  /** @param broker wills of earlier runs are published if it can publish */
  async setup(broker: Pick<Aedes, 'id'> | (Pick<Aedes, 'id'> & WillPublisher)): Promise<void> {
    this.#brokerId = broker.id
    if ('publish' in broker) this.#broker = broker
    await this.retained.load()
    await loadSessions({
      storage: this.#storage,
      sessions: this.sessions,
      index: this.#index,
      queueExpiry: this.#queueExpiry,
      slicer: this.#slicer,
      limits: this.#limits,
      log: this.#log,
    })
    // Sessions beyond the bounds were removed.
    for (const id of this.#incoming.keys()) if (!this.sessions.has(id)) this.#incoming.delete(id)
    await this.#earlierWills.load()
  }

  /** Stops what runs by time. Call before the storage is closed. */
  async close(): Promise<void> {
    const parts = [this.retained.close(), this.sessions.close(), this.#queueExpiry.stop(), this.#earlierWills.stop()]
    await Promise.all(parts)
    // Sessions that are being removed.
    await Promise.allSettled(this.#tails.values())
  }

  /** Stores a session's record, but not before the removal of an earlier session with this client id. */
  #keepSession(id: string, session: SessionRecord): Promise<void> {
    const write = (): Promise<void> => this.#storage.keepSession(id, session)
    const earlier = this.#tails.get(id)
    return earlier ? earlier.then(write, write) : write()
  }

  async #end(id: string): Promise<void> {
    this.sessions.remove(id)
    this.#queueExpiry.ended(id)
    const willRead = this.#earlierWills.sessionEnded(id)
    await this.#inOrder({ id }, async () => {
      this.#index.removeAll(id)
      await Promise.all([this.cleanIncoming({ id }), this.#storage.removeSession(id), willRead])
    })
  }

  /** Clears RETAIN of a message that does not fit, for push and bridges, which get RETAIN as published. */
  async storeRetained(packet: AedesPublishPacket): Promise<void> {
    const { isKept, written } = this.retained.store(detachPayload(packet), this.publisher)
    if (!isKept) packet.retain = false
    if (written) this.#retainedWrite = { written, bytes: retainedSize(packet) }
  }

  /** Empty: `RetainedDelivery` sends retained messages. */
  createRetainedStreamCombi(): Readable {
    return Readable.from([])
  }

  /** The subscriptions of a client's session. */
  subscriptionsOf({ id }: Session): readonly StoredSubscription[] {
    return this.#index.of(id)
  }

  /** Stores granted subscriptions of a client's session. */
  addSubscriptions(client: Session, granted: readonly StoredSubscription[]): Promise<void> {
    return this.#inOrder(client, async () => {
      await this.#storage.addSubscriptions(client.id, granted)
      this.sessions.grow(client.id, this.#index.add(client.id, granted))
    })
  }

  removeSubscriptions(client: Session, filters: readonly string[]): Promise<void> {
    return this.#inOrder(client, async () => {
      this.sessions.grow(client.id, -this.#index.remove(client.id, filters))
      await this.#storage.removeSubscriptions(client.id, filters)
    })
  }

  /**
   * Ends the session: Aedes calls this for a client with a clean session [MQTT-3.1.2-6], and with Clean Start. In the latter case, a client
   * whose session outlives its connection gets a new one.
   */
  async cleanSubscriptions(client: Session & Partial<Pick<Client, 'clean' | 'closed'>>): Promise<void> {
    const { id } = client
    const holder = client.clean === false && !client.closed ? this.sessions.holderOf(id) : undefined
    const expiry = this.sessions.nextExpiryOf(id)
    if (this.sessions.wasOpened(id) || (this.sessions.has(id) && !holder)) await this.#end(id)
    // In order: each of several connections with one client id gets its CONNACK before the next one closes it.
    else await this.#inOrder({ id }, () => nextTick())
    if (!holder) return
    this.sessions.admit(id, holder, expiry)
    if (client.closed) this.sessions.abandon(id)
    else this.sessions.open(id)
  }

  /**
   * Called by Aedes for a client with a session, which is created if there is none. Returns a placeholder where there was one: Aedes sets
   * session-present only if there is a subscription [MQTT-3.2.2-2].
   */
  async subscriptionsByClient(client: Session): Promise<StoredSubscription[]> {
    const isKnown = this.sessions.open(client.id)
    await this.#tails.get(client.id)?.catch(() => {})
    return isKnown ? [{ topic: noSubscription, qos: 0 }] : []
  }

  async subscriptionsByTopic(topic: string): Promise<SessionSubscription[]> {
    const matched = this.#index.match(topic, this.publisherId)
    this.#matched = matched.length
    return matched
  }

  /** The number of sessions that the last message of QoS 1 or 2 matched, once. */
  takeMatchedSessions(): number {
    const matched = this.#matched
    this.#matched = 0
    return matched
  }

  outgoingEnqueueCombi(subscriptions: readonly SessionSubscription[], packet: AedesPublishPacket): Promise<void> {
    return this.#enqueuer.enqueue(subscriptions, packet, this.#storePublishedId)
  }

  /**
   * Stores the packet identifier in one batch with the message's queue entries, for the next run: after a crash, the message is neither lost nor
   * queued twice. `incomingStorePacket` follows, before PUBREC.
   */
  readonly #storePublishedId = (): void => {
    const { publisherId, publishedId } = this
    if (publisherId === undefined || publishedId === undefined || !this.sessions.has(publisherId)) return
    // An error is that of `incomingStorePacket`, too.
    this.#storage.addIncoming(publisherId, publishedId).catch(() => {})
  }

  /** Writes of the last stored message, once: it is delivered meanwhile, and acknowledged afterwards. */
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
   * Packet identifiers of messages to a client. They begin with 1 in a clean session, and at random otherwise: a returning client may still have
   * identifiers of retained messages of QoS 2, which are in no queue, and would take another message for a repetition.
   */
  packetIdsOf(client: Pick<Client, 'clean'>): PacketIds {
    let ids = this.#packetIds.get(client)
    if (!ids) {
      ids = new PacketIds(client.clean ? 1 : randomInt(1, maxPacketId + 1))
      this.#packetIds.set(client, ids)
    }
    return ids
  }

  /** Notes an acknowledgement of a client; returns whether it is the expected one. */
  acknowledge(client: object, id: number, acknowledgement: Acknowledgement): boolean {
    return this.#packetIds.get(client)?.acknowledge(id, acknowledgement) ?? true
  }

  outgoingUpdate(client: Session, packet: AedesPublishPacket): Promise<void> {
    return this.#inOrder(client, () => this.#update(client, packet))
  }

  async #update(client: Session, packet: AedesPublishPacket): Promise<void> {
    try {
      this.sessions.growQueue(client.id, await this.#storage.queues.update(client.id, packet))
    } catch (error) {
      if (!(error instanceof Error && error.message === noSuchPacket().message)) throw error
      // A PUBREC for a message that is in no queue, such as a retained one, is answered with PUBREL, too.
      if (!packet.brokerId) return
      // The message was not queued: it is older than the subscription, or did not fit.
      const message = this.#storage.queues.prepare(detachPayload(packet))
      if (!this.sessions.admitMessage(client.id, message.bytes, message.topic))
        throw new Error('too many unacknowledged messages')
      await message.add([client.id])
      this.sessions.growQueue(client.id, await this.#storage.queues.update(client.id, packet))
    }
  }

  /** Runs `write` after the earlier ones of this session. */
  async #inOrder<T>(client: Session, write: () => Promise<T>): Promise<T> {
    const earlier = this.#tails.get(client.id)
    const current = earlier ? earlier.then(write, write) : write()
    this.#tails.set(client.id, current)
    try {
      return await current
    } finally {
      if (this.#tails.get(client.id) === current) this.#tails.delete(client.id)
    }
  }

  async outgoingClearMessageId(
    client: Session,
    { messageId }: Pick<AedesPublishPacket, 'messageId'>,
  ): Promise<AedesPublishPacket | undefined> {
    if (messageId === undefined) return undefined
    // Without a session there is no queue.
    if (!this.sessions.has(client.id)) {
      this.#packetIds.get(client)?.release(messageId)
      return undefined
    }
    const key = `${messageId} ${client.id}`
    const earlier = this.#clearing.get(key)
    // The client repeats itself: the identifier is in use until the message is cleared.
    if (earlier?.client === client) return undefined
    try {
      if (earlier) {
        await earlier.cleared
        return undefined
      }
      const cleared = this.#clear(client, messageId).finally(() => this.#clearing.delete(key))
      this.#clearing.set(key, { client, cleared })
      return await cleared
    } finally {
      this.#packetIds.get(client)?.release(messageId)
    }
  }

  /**
   * Removes a message from the queue. Acknowledgements of one client are read concurrently, because each read takes an event-loop tick, and
   * nobody waits for their writes: a message that comes again after a crash is a repetition.
   */
  async #clear(client: Session, messageId: number): Promise<AedesPublishPacket | undefined> {
    await this.#tails.get(client.id)?.catch(() => {})
    const cleared = await this.#storage.queues.clear(client.id, messageId)
    if (!cleared) return undefined
    cleared.written.catch(this.#onError)
    this.sessions.release(client.id, cleared.bytes)
    return cleared.packet
  }

  async *#readQueue({ id }: Client): AsyncGenerator<AedesPublishPacket> {
    await this.#enqueuer.bringForward(id)
    yield* this.#storage.queues.read(id, bytes => this.sessions.release(id, bytes))
  }

  /** Empty: `Delivery` sends the queue. */
  outgoingStream(): Readable {
    return Readable.from([])
  }

  /** Stores a packet identifier of QoS 2 until PUBREL. */
  async incomingStorePacket({ id }: Session, { messageId = 0 }: PublishPacket): Promise<void> {
    const identifiers = this.#incoming.get(id) ?? new PacketIds()
    this.#incoming.set(id, identifiers)
    identifiers.take(messageId, 'pubcomp')
    try {
      await this.#storage.addIncoming(id, messageId)
    } catch (error) {
      identifiers.release(messageId)
      throw error
    }
  }

  /** Whether a message of QoS 2 with this identifier waits for its PUBREL. */
  hasIncoming(clientId: string, id: number): boolean {
    return this.#incoming.get(clientId)?.has(id) === true
  }

  /** Forgets a packet identifier of QoS 2 after PUBREL. Returns whether a message with it waited for that. */
  async releaseIncoming({ id }: Session, messageId: number): Promise<boolean> {
    const identifiers = this.#incoming.get(id)
    if (!identifiers?.has(messageId)) return false
    identifiers.release(messageId)
    if (identifiers.used === 0) this.#incoming.delete(id)
    await this.#storage.removeIncoming(id, messageId)
    return true
  }

  async cleanIncoming({ id }: Session): Promise<void> {
    // A removal is a write.
    if (this.#incoming.delete(id)) await this.#storage.clearIncoming(id)
  }

  /** Marks a will as checked (see `DurableAedes`), and stores it for the next run, which publishes it. */
  async putWill(client: WillOwner, will: Will): Promise<void> {
    const stored: StoredWill = Object.assign(will, { brokerId: this.#brokerId, clientId: client.id })
    this.#willOwners.set(client.id, client)
    // It is not published.
    if (!will.topic.startsWith('$SYS/')) await this.#storage.putWill(stored)
  }

  /**
   * Removes a stored will. Aedes calls this for a new connection with its client id, with its client, and when a will is published or will not
   * be, with the client id alone: late, the stored will may be that of the next connection, and stays.
   */
  async delWill({ id }: Session): Promise<void> {
    const owner = this.#willOwners.get(id)
    if (owner && !owner.closed) return
    this.#willOwners.delete(id)
    const isEarlier = this.#earlierWills.returned(id)
    if (owner || isEarlier) await this.#storage.removeWill(id).catch(this.#onError)
  }

  /** Empty: `EarlierWills` publishes the wills of earlier runs. */
  streamWill(): Readable {
    return Readable.from([])
  }
}

/** Publishes a will as Aedes does. */
async function publishWill(broker: WillPublisher, will: StoredWill): Promise<void> {
  const expiry = will.properties?.messageExpiryInterval
  const messageExpiry = expiry !== undefined && { messageExpiry: Date.now() + expiry * 1000 }
  const packet = Object.assign({ ...will, cmd: 'publish' as const, dup: false }, messageExpiry) as PublishPacket
  const settle = (resolve: () => void, reject: (error: Error) => void) => (error?: Error | null) => {
    if (error) reject(error)
    else resolve()
  }
  await new Promise<void>((resolve, reject) => broker.authorizePublish(null, packet, settle(resolve, reject)))
  await new Promise<void>((resolve, reject) => broker.publish(packet, null, settle(resolve, reject)))
}
