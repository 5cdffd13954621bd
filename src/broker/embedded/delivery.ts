import type { AedesPublishPacket, Client } from 'aedes'
import type { Logger } from '../../base/log.js'
import type { Message, QoS } from '../../mqtt/message.js'
import { secondsUntil } from '../../mqtt/publish-packet.js'
import { encodeAcknowledgement } from '../../mqtt/server-packets.js'
import type { CongestedEnd, Congestion } from './congestion.js'
import type { LiveSubscriptions, Matched, Recipient } from './live-subscriptions.js'
import { isExpired, messageOf, subscriptionIdentifiersOf } from './packet.js'
import { encodedSize, maxCopiedPayload, PublishEncoder } from './packet-encoding.js'
import { firstAcknowledgement, maxPacketId, type PacketIds } from './packet-ids.js'
import type { SessionQueueReplay } from './session-queue-replay.js'
import type { PairEnd } from './stream-pair.js'
import type { TickScheduler } from './tick-scheduler.js'
import type { TopicAliases } from './topic-aliases.js'

export type ReceiverEnd = CongestedEnd & Pick<PairEnd, 'send' | 'write' | 'once' | 'removeListener'>

/** The limits that a client gave in its CONNECT for packets to it (MQTT 5 §3.1.2.11); before MQTT 5 there are none. */
export interface ReceiverLimits {
  readonly isVersion5: boolean
  /** Messages of QoS 1 and 2 without their last acknowledgement. */
  readonly receiveMaximum: number
  /** Bytes of a packet. */
  readonly maximumPacketSize: number
  /** `undefined`: the client takes none. */
  readonly aliases: TopicAliases | undefined
}

/** A message that waits: for a packet identifier, or until its identifier is stored. */
interface Waiting {
  readonly packet: AedesPublishPacket
  readonly message: Message
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  readonly identifiers: readonly number[] | undefined
  readonly size: number
  id: number
  isStored: boolean
  /** Called when it is written, where its publisher, or whoever sends it, waits for that. */
  done: () => void
}

type Added = 'written' | 'full' | 'waiting'

/** One client that gets messages. */
export interface Receiver extends ReceiverLimits {
  readonly client: Client
  readonly end: ReceiverEnd | undefined
  readonly ids: PacketIds
  /** Whether it has its CONNACK, which must be its first packet [MQTT-3.2.0-1]. */
  isConnected: boolean
  /** Maximum bytes of retained and queued messages in its buffer: those are sent only while there is room. */
  paced: number
  /** Messages that wait, and their bytes. */
  readonly waiting: Waiting[]
  waitingBytes: number
  /** Called when its buffer has room. */
  onDrain: (() => void)[]
  /** Called when it may get a further message of QoS 1 or 2. */
  onWindow: (() => void)[]
  /** Whether live messages are dropped: until the client has read the waiting ones. */
  isFull: boolean
  hasWarned: boolean
}

export interface DeliveryOptions {
  /** Waiting bytes of one client above which its publishers wait. */
  readonly maxQueuedBytes: number
  /** Decides which clients above that limit are slow, and get no more messages. */
  readonly congestion: Pick<Congestion<Client>, 'mayJoin'>
  readonly queueReplay: SessionQueueReplay
  readonly subscriptions: Pick<LiveSubscriptions<Receiver>, 'matchedOf'>
  readonly tick: TickScheduler
  readonly mayReceive: (client: Client, topic: string) => boolean
  /** Stores the packet identifier of a message of a session. */
  readonly store: (client: Client, packet: AedesPublishPacket) => Promise<void>
  /** Called when a message of QoS 1 or 2 is sent. */
  readonly onSent?: (client: Client, messageId: number, packet: AedesPublishPacket) => void
  /** Removes a message that cannot be sent from the session's queue. */
  readonly discard: (client: Client, packet: AedesPublishPacket) => Promise<unknown>
  readonly cutOff: (client: Client) => void
  readonly onError: (error: unknown) => void
  readonly logFieldsOf?: (client: Client) => object
  readonly log: Logger
}

/** Messages of a queue that are sent at a time, and the size of a larger one, which is sent alone, in bytes. */
const [maxUnsent, maxUnsentSize] = [64, 16 * 1024]

/** Overhead of a message that waits, in bytes; measured, rounded up. */
const waitingOverhead = 128

/** Messages that may wait for a client's acknowledgements. */
const maxWaiting = 16_384

/**
 * Writes all messages to the clients: decides for each message and client whether to deliver, drop, or close the connection.
 *
 * Publishers wait for a client with `maxQueuedBytes` waiting while it reads. A slow one (`Congestion`) gets no more messages: QoS 0 is
 * dropped until it has read the waiting ones. A client with QoS 1 or 2 must not miss a message silently: its connection is closed, and its
 * session, if it has one, keeps the message.
 *
 * A client has at most its receive maximum of messages of QoS 1 and 2 without acknowledgement [MQTT-3.3.4-9]. Further ones wait in memory, and
 * in its queue where it has a session.
 *
 * Aedes would encode each message for each client, knows no receive maximum, and sends packets that a client does not take.
 */
export class Delivery {
  sent = 0
  dropped = 0
  readonly #options: DeliveryOptions
  readonly #encoder: PublishEncoder
  /** The last live packet, and its message. */
  #packet: AedesPublishPacket | undefined
  #message: Message = { topic: '', payload: Buffer.alloc(0), qos: 0, retain: false }

  constructor(options: DeliveryOptions) {
    this.#options = options
    this.#encoder = new PublishEncoder(options.tick)
  }

  /**
   * Delivers a live message to a subscriber that it matches.
   *
   * @param done called when the client has room, where this returns false
   */
  live(subscriber: Recipient<Receiver>, packet: AedesPublishPacket, done: () => void): boolean {
    const { receiver } = subscriber
    const { client, end } = receiver
    const qos = lower(packet.qos, subscriber.qos) // [MQTT-3.8.4-6]
    if (qos === 0 ? !receiver.isConnected : !this.#options.queueReplay.mayPass(client, packet)) return true
    const message = this.#messageOf(packet)
    const size = sizeOf(message)
    const buffered = end?.waitingBytes ?? 0
    if (receiver.paced > buffered) receiver.paced = buffered
    const waiting = buffered - receiver.paced + receiver.waitingBytes
    if (waiting <= 0) receiver.isFull = false
    const isOver = (receiver.isFull && qos === 0) || waiting + size >= this.#options.maxQueuedBytes
    if ((isOver && !this.#mayJoin(receiver, qos, waiting)) || receiver.waiting.length >= maxWaiting) {
      this.#overflow(receiver, packet.topic, qos)
      return true
    }
    const retain = packet.retain && subscriber.retainAsPublished
    const { identifiers } = subscriber
    if (qos === 0 && !identifiers && this.#sendShared(receiver, message, retain)) return true
    const entry = { packet, message, qos, retain, dup: false, identifiers, size, id: 0, isStored: true, done }
    if (qos > 0 && !client.clean) return this.#liveOfSession(receiver, entry)
    const added = this.#add(receiver, entry)
    if (added === 'waiting') entry.done = ignore
    return added !== 'full'
  }

  #messageOf(packet: AedesPublishPacket): Message {
    if (packet !== this.#packet) {
      this.#packet = packet
      this.#message = messageOf(packet)
    }
    return this.#message
  }

  /** Writes a live message of QoS 0 in the form that most subscribers share. Returns false where it must be written in another way. */
  #sendShared(receiver: Receiver, message: Message, retain: boolean): boolean {
    const { end, isVersion5, aliases, waiting } = receiver
    if (!end || aliases || message.expires !== undefined || message.payload.length > maxCopiedPayload) return false
    if (waiting.length > 0 && !waiting[0]?.isStored) return false
    const bytes = this.#encoder.shared(message, isVersion5, retain)
    if (bytes.length > receiver.maximumPacketSize || !end.send(bytes)) return false
    this.sent++
    return true
  }

  #liveOfSession(receiver: Receiver, entry: Waiting): boolean {
    const { client, ids } = receiver
    const { queueReplay } = this.#options
    if (!hasWindow(receiver)) {
      // It is in the queue, and is sent from there.
      queueReplay.holdBack(client)
      this.replay(receiver)
      return true
    }
    queueReplay.passed(client, entry.packet)
    const { packet, qos, retain } = entry
    entry.id = ids.takeNext(firstAcknowledgement(qos))
    this.#storeIdentifier(receiver, entry, { ...packet, qos, retain, messageId: entry.id })
    return this.#add(receiver, entry) === 'written'
  }

  /** Stores the packet identifier of a message, which is sent then. */
  #storeIdentifier(receiver: Receiver, entry: Waiting, packet: AedesPublishPacket): void {
    entry.isStored = false
    const written = (): void => {
      entry.isStored = true
      this.#flush(receiver)
    }
    const stored = this.#options.store(receiver.client, packet)
    // Also after an error: whoever waits for the message goes on.
    stored.catch(error => this.#fail(receiver.client, error)).then(written, this.#options.onError)
  }

  /** Whether another message may be written to a client at its limit. */
  #mayJoin({ client, end, isFull }: Receiver, qos: QoS, waiting: number): boolean {
    const { congestion, maxQueuedBytes } = this.#options
    if (!end) return waiting < maxQueuedBytes && !isFull
    return !(isFull && qos === 0) && congestion.mayJoin(client, end, waiting)
  }

  /** Writes a message, or keeps it while it must wait, or earlier ones do. */
  #add(receiver: Receiver, entry: Waiting): Added {
    const { waiting } = receiver
    const [first] = waiting
    // The first one, if stored, waits for a packet identifier. Others need none: of QoS 0 (only those of one QoS keep their order
    // [MQTT-4.6.0-6]), or of the queue, with one that is acknowledged only after it is sent.
    const mayPass = !first || (first.isStored && (entry.qos === 0 || entry.id > 0))
    if (mayPass && this.#isDue(receiver, entry)) return this.#write(receiver, entry) ? 'written' : 'full'
    waiting.push(entry)
    receiver.waitingBytes += entry.size + waitingOverhead
    return 'waiting'
  }

  #isDue(receiver: Receiver, entry: Waiting): boolean {
    if (!entry.isStored) return false
    if (entry.qos === 0 || entry.id > 0) return true
    if (!hasWindow(receiver)) return false
    entry.id = receiver.ids.takeNext(firstAcknowledgement(entry.qos))
    return true
  }

  /** Call when a client has acknowledged a message, whose packet identifier is free now. */
  acknowledged(receiver: Receiver): void {
    this.#flush(receiver)
    if (!hasWindow(receiver) || receiver.onWindow.length === 0) return
    for (const listener of receiver.onWindow.splice(0)) listener()
  }

  /** Writes the waiting messages that are due. */
  #flush(receiver: Receiver): void {
    const { waiting } = receiver
    for (let entry = waiting[0]; entry && this.#isDue(receiver, entry); entry = waiting[0]) {
      waiting.shift()
      receiver.waitingBytes -= entry.size + waitingOverhead
      if (this.#write(receiver, entry)) entry.done()
    }
  }

  /** Writes a message that is due. Returns whether the client has room; calls its `done` later if not. */
  #write(receiver: Receiver, entry: Waiting): boolean {
    const { end, isVersion5 } = receiver
    if (!end || end.destroyed) return true
    const { message, qos, retain, dup, id, identifiers } = entry
    const expiry = message.expires === undefined ? undefined : secondsUntil(message.expires)
    const alias = dup ? undefined : receiver.aliases?.of(message.topic)
    const parts = this.#encoder.encode(message, {
      ...{ isVersion5, qos, retain, dup, id, alias },
      expiry: isVersion5 ? expiry : undefined,
      subscriptionIdentifiers: isVersion5 ? identifiers : undefined,
    })
    if (encodedSize(parts) > receiver.maximumPacketSize) {
      // [MQTT-3.1.2-25]: as if it was sent.
      this.dropped++
      if (alias?.isKnown === false) receiver.aliases?.delete(message.topic)
      if (qos > 0) this.#discard(receiver, entry)
      return true
    }
    this.sent++
    if (qos > 0) this.#options.onSent?.(receiver.client, id, entry.packet)
    return this.#send(receiver, end, parts, entry.done)
  }

  #discard(receiver: Receiver, { packet, id }: Waiting): void {
    const discarded = this.#options.discard(receiver.client, { ...packet, messageId: id })
    discarded.then(() => this.acknowledged(receiver), this.#options.onError)
  }

  #send(receiver: Receiver, end: ReceiverEnd, parts: readonly Buffer[], done: () => void): boolean {
    let hasRoom = true
    for (const part of parts) if (!end.send(part)) hasRoom = end.write(part)
    if (hasRoom) return true
    if (receiver.onDrain.push(done) === 1) this.#waitForDrain(receiver, end)
    return false
  }

  #waitForDrain(receiver: Receiver, end: ReceiverEnd): void {
    const drained = (): void => {
      end.removeListener('drain', drained)
      end.removeListener('close', drained)
      const listeners = receiver.onDrain
      receiver.onDrain = []
      for (const listener of listeners) listener()
    }
    end.once('drain', drained)
    end.once('close', drained)
  }

  #overflow(receiver: Receiver, topic: string, qos: QoS): void {
    const { client } = receiver
    this.dropped++
    if (qos > 0) {
      this.#options.cutOff(client)
      return
    }
    receiver.isFull = true
    if (receiver.hasWarned) return
    receiver.hasWarned = true
    const { logFieldsOf, log } = this.#options
    const fields = logFieldsOf?.(client) ?? { clientId: client.id }
    log.warn({ ...fields, topic }, 'the client reads too slowly: dropping messages of QoS 0 to it')
  }

  /**
   * Sends a retained message to a new subscriber.
   *
   * @param done called when the client has room for more, where this returns false
   */
  retained(receiver: Receiver, packet: AedesPublishPacket, done: () => void): boolean {
    const { client } = receiver
    if (!this.#options.mayReceive(client, packet.topic)) return true
    const matched: Matched | undefined = this.#options.subscriptions.matchedOf(client, packet.topic)
    const qos = lower(packet.qos, matched?.qos ?? 2)
    const message = messageOf(packet)
    if (isExpired(packet)) return true
    const size = sizeOf(message)
    receiver.paced += size
    const identifiers = matched?.identifiers
    const entry = { packet, message, qos, retain: true, dup: false, identifiers, size, id: 0, isStored: true, done }
    return this.#add(receiver, entry) === 'written'
  }

  /** Sends the queue of a session, and then what was held back meanwhile. Call when `receiver` has its CONNACK. */
  replay(receiver: Receiver): void {
    const { client } = receiver
    const { queueReplay } = this.#options
    const unsent: Promise<void>[] = []
    // After an error it would get no more messages of QoS 1 and 2.
    queueReplay
      .run(client, packet => this.#replayOne(receiver, packet, unsent))
      .catch(error => this.#fail(client, error))
  }

  #fail(client: Client, error: unknown): void {
    this.#options.onError(error)
    this.#options.cutOff(client)
  }

  /**
   * Sends one packet of the queue.
   *
   * @param unsent the messages whose identifiers are being stored, or that wait for room: several at a time, because one alone waits for the disk,
   *   and live messages may come faster
   * @returns whether to go on
   */
  async #replayOne(receiver: Receiver, packet: AedesPublishPacket, unsent: Promise<void>[]): Promise<boolean> {
    const { client, end, ids } = receiver
    if (!end || end.destroyed) return false
    if (packet.cmd !== 'publish') {
      ids.take(packet.messageId ?? 0, 'pubcomp')
      this.#options.onSent?.(client, packet.messageId ?? 0, packet)
      end.write(encodeAcknowledgement('pubrel', { id: packet.messageId ?? 0 }))
      return true
    }
    const message = messageOf(packet)
    const known = packet.messageId ?? 0
    // One that was sent before is sent again, also when it has expired [MQTT-4.4.0-1].
    if ((known === 0 && isExpired(packet)) || !this.#options.mayReceive(client, packet.topic)) {
      await this.#remove(receiver, packet)
      return true
    }
    while (!hasWindow(receiver)) {
      if (!(await this.#untilWindow(receiver, end))) return false
    }
    const awaited = firstAcknowledgement(packet.qos)
    if (known > 0) ids.take(known, awaited)
    const id = known > 0 ? known : ids.takeNext(awaited)
    const size = sizeOf(message)
    receiver.paced += size
    const { qos, retain } = packet
    const identifiers = subscriptionIdentifiersOf(packet)
    const sent = new Promise<void>(resolve => {
      const entry: Waiting = {
        packet,
        message,
        qos,
        retain,
        dup: known > 0,
        identifiers,
        size,
        id,
        isStored: true,
        done: resolve,
      }
      if (known === 0) this.#storeIdentifier(receiver, entry, { ...packet, messageId: id })
      if (this.#add(receiver, entry) === 'written') resolve()
    })
    unsent.push(sent)
    if (size > maxUnsentSize) await Promise.all(unsent.splice(0))
    else if (unsent.length > maxUnsent) await unsent.shift()
    return !end.destroyed
  }

  /** Removes a message from a queue: the queue knows messages by their packet identifier. */
  async #remove(receiver: Receiver, packet: AedesPublishPacket): Promise<void> {
    const { client, ids } = receiver
    const known = packet.messageId ?? 0
    const id = known > 0 ? known : ids.takeNext(firstAcknowledgement(packet.qos))
    if (known === 0) await this.#options.store(client, { ...packet, messageId: id })
    await this.#options.discard(client, { ...packet, messageId: id })
    this.acknowledged(receiver)
  }

  /** Resolves when a further message of QoS 1 or 2 may be sent; to false when the connection is closed. */
  #untilWindow(receiver: Receiver, end: ReceiverEnd): Promise<boolean> {
    return new Promise(resolve => {
      const settle = (): void => {
        end.removeListener('close', settle)
        resolve(!end.destroyed)
      }
      receiver.onWindow.push(settle)
      end.once('close', settle)
    })
  }
}

/** Whether a client takes another message now. */
export function isReady(receiver: Receiver): boolean {
  return receiver.isConnected && !receiver.isFull && receiver.waiting.length === 0 && hasWindow(receiver)
}

function hasWindow({ ids, receiveMaximum }: Receiver): boolean {
  return ids.used < Math.min(receiveMaximum, maxPacketId)
}

function sizeOf({ topic, payload, properties }: Message): number {
  return topic.length + payload.length + (properties?.length ?? 0)
}

function lower(a: QoS, b: QoS): QoS {
  return a < b ? a : b
}

function ignore(): void {}
