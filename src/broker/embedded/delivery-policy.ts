import type { AedesPublishPacket, Client } from 'aedes'
import type { Logger } from '../../base/log.js'
import type { CongestedEnd, Congestion } from './congestion.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import { firstAcknowledgement, maxPacketId, type PacketIds } from './packet-ids.js'
import { PublishEncoder } from './publish-encoding.js'
import type { SessionQueueReplay } from './session-queue-replay.js'
import type { PairEnd } from './stream-pair.js'
import type { TickScheduler } from './tick-scheduler.js'

export type DeliveryPolicyEnd = CongestedEnd & Pick<PairEnd, 'send'>

export interface DeliveryPolicyOptions {
  /** Waiting bytes of one client above which its publishers wait. */
  readonly maxQueuedBytes: number
  /** Decides which clients above that limit are slow, and get no more messages. */
  readonly congestion: Pick<Congestion<Client>, 'mayJoin'>
  readonly queueReplay: SessionQueueReplay
  readonly subscriptions: Pick<LiveSubscriptions, 'qosOf'>
  readonly tick: TickScheduler
  readonly mayReceive: (client: Client, topic: string) => boolean
  readonly brokerEndOf: (client: Client) => DeliveryPolicyEnd | undefined
  readonly packetIdsOf: (client: Client) => Pick<PacketIds, 'used' | 'take' | 'takeNext'>
  /** Stores the packet identifier of a sent message of a session. */
  readonly noteSent: (client: Client, packet: AedesPublishPacket) => void
  readonly cutOff: (client: Client) => void
  readonly logFieldsOf?: (client: Client) => object
  readonly log: Logger
}

interface Outbox {
  readonly end: DeliveryPolicyEnd | undefined
  connected: boolean
  /** Maximum bytes of retained and queued messages in its buffer: Aedes sends those only while there is room. */
  paced: number
  /** Messages that Aedes is to write and has not written, and the bytes of the live ones. */
  unwritten: number
  pending: number
  /** Whether live messages are dropped: until the client has read the waiting ones. */
  full: boolean
  warned: boolean
}

/** Larger payloads are left to Aedes, which does not copy them. In bytes. */
const maxEncodedPayload = 16 * 1024

/**
 * Decides for each message and client: deliver, drop, or close the connection.
 *
 * Publishers wait for a client with `maxQueuedBytes` waiting while it reads. A slow one (`Congestion`) gets no more messages: QoS 0 is
 * dropped until it has read the waiting ones. A client with QoS 1 or 2 must not miss a message silently: its connection is closed, and its
 * session, if it has one, keeps the message.
 *
 * Messages of QoS 0 are encoded once and written here; Aedes would encode them for each client.
 */
export class DeliveryPolicy {
  sent = 0
  dropped = 0
  readonly #options: DeliveryPolicyOptions
  readonly #encoder: PublishEncoder
  readonly #outboxes = new WeakMap<Client, Outbox>()
  #unwritten: { outbox: Outbox; size: number }[] = []

  constructor(options: DeliveryPolicyOptions) {
    this.#options = options
    this.#encoder = new PublishEncoder(options.tick)
  }

  /** Call when `client` has its CONNACK, which must be its first packet [MQTT-3.2.0-1]. */
  connected(client: Client): void {
    this.#outboxOf(client).connected = true
  }

  /** Aedes' `authorizeForward`: the packet for Aedes to send; null if it is sent already or dropped. */
  authorize(client: Client, packet: AedesPublishPacket): AedesPublishPacket | null {
    if (packet.qos > 0) {
      const granted = this.#options.subscriptions.qosOf(client, packet.topic) ?? packet.qos
      if (granted === 0 && !client.clean && isLive(packet)) {
        // Otherwise Aedes would put it into the session's queue.
        client.publish(asQos0(packet), ignore)
        return null
      }
      // [MQTT-3.8.4-6]
      if (granted < packet.qos) packet.qos = granted
    }
    const outbox = this.#outboxOf(client)
    const buffered = outbox.end?.waitingBytes ?? 0
    if (outbox.paced > buffered) outbox.paced = buffered
    const size = packet.topic.length + packet.payload.length
    if (!isLive(packet)) {
      if (!this.#options.mayReceive(client, packet.topic)) return null
      outbox.paced += size
      if (packet.qos > 0 && !this.#identify(client, packet)) return null
      return this.#toAedes(outbox, packet, 0)
    }
    if (packet.qos === 0 ? !outbox.connected : !this.#options.queueReplay.mayPass(client, packet)) return null
    const waiting = buffered - outbox.paced + outbox.pending
    if (waiting <= 0) outbox.full = false
    const isFull = (outbox.full && packet.qos === 0) || waiting + size >= this.#options.maxQueuedBytes
    if (isFull && !this.#mayJoin(client, outbox, packet, waiting)) {
      this.#overflow(client, outbox, packet)
      return null
    }
    if (packet.qos > 0) {
      if (!this.#identify(client, packet)) {
        this.#overflow(client, outbox, packet)
        return null
      }
      // A live message with RETAIN: Aedes takes it for a retained one, and would leave it in the session's queue.
      if (packet.retain && !client.clean) this.#options.noteSent(client, { ...packet })
    }
    if (packet.qos > 0 || !this.#send(outbox, packet)) return this.#toAedes(outbox, packet, size)
    this.sent++
    return null
  }

  /** Whether another message may be written to a client at its limit. */
  #mayJoin(client: Client, outbox: Outbox, packet: AedesPublishPacket, waiting: number): boolean {
    const { congestion, maxQueuedBytes } = this.#options
    if (!outbox.end) return waiting < maxQueuedBytes && !outbox.full
    return !(outbox.full && packet.qos === 0) && congestion.mayJoin(client, outbox.end, waiting)
  }

  /** Writes a live message of QoS 0, unless it would overtake one that Aedes is to write [MQTT-4.6.0-6]. */
  #send({ end, unwritten }: Outbox, packet: AedesPublishPacket): boolean {
    if (!end || unwritten > 0 || packet.payload.length > maxEncodedPayload || packet.dup) return false
    return end.send(this.#encoder.encode(packet))
  }

  /**
   * Gives a message a free packet identifier [MQTT-2.3.1-4], unless it has one; Aedes itself would not check. Returns false if none is free.
   */
  #identify(client: Client, packet: AedesPublishPacket): boolean {
    const ids = this.#options.packetIdsOf(client)
    const awaited = firstAcknowledgement(packet.qos)
    if (packet.messageId !== undefined) ids.take(packet.messageId, awaited)
    else if (ids.used >= maxPacketId) return false
    else packet.messageId = ids.takeNext(awaited)
    return true
  }

  /** Returns the packet to Aedes, which writes it in its next `setImmediate`. */
  #toAedes(outbox: Outbox, packet: AedesPublishPacket, size: number): AedesPublishPacket {
    this.sent++
    outbox.unwritten++
    outbox.pending += size
    if (this.#unwritten.push({ outbox, size }) === 1) {
      process.nextTick(() => {
        const written = this.#unwritten
        this.#unwritten = []
        setImmediate(areWritten, written)
      })
    }
    return packet
  }

  #overflow(client: Client, outbox: Outbox, packet: AedesPublishPacket): void {
    this.dropped++
    if (packet.qos > 0) {
      this.#options.cutOff(client)
      return
    }
    outbox.full = true
    if (outbox.warned) return
    outbox.warned = true
    const { logFieldsOf, log } = this.#options
    const fields = logFieldsOf?.(client) ?? { clientId: client.id }
    log.warn({ ...fields, topic: packet.topic }, 'the client reads too slowly: dropping messages of QoS 0 to it')
  }

  #outboxOf(client: Client): Outbox {
    let outbox = this.#outboxes.get(client)
    if (!outbox) {
      const end = this.#options.brokerEndOf(client)
      outbox = { end, connected: false, paced: 0, unwritten: 0, pending: 0, full: false, warned: false }
      this.#outboxes.set(client, outbox)
    }
    return outbox
  }
}

function areWritten(written: readonly { outbox: Outbox; size: number }[]): void {
  for (const { outbox, size } of written) {
    outbox.unwritten--
    outbox.pending -= size
  }
}

/** Whether `packet` is live, not a retained or queued message. */
function isLive(packet: AedesPublishPacket): boolean {
  return Boolean(packet.brokerId) && packet.messageId === undefined
}

/** With another broker id, because Aedes would drop a second message with the same one. */
function asQos0({ cmd, topic, payload, retain, dup, brokerCounter }: AedesPublishPacket): AedesPublishPacket {
  return { cmd, topic, payload, retain, dup, qos: 0, brokerId: 'qos0', brokerCounter }
}

function ignore(): void {}
