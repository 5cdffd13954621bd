import type { AedesPublishPacket, Client } from 'aedes'
import type { Logger } from '../../base/log.js'
import type { CongestedEnd, Congestion } from './congestion.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import { firstAcknowledgement, maxPacketId, type PacketIds } from './packet-ids.js'
import { PublishEncoder } from './publish-encoding.js'
import type { SessionQueueReplay } from './session-queue-replay.js'
import type { TickScheduler } from './tick-scheduler.js'

/** The broker's end of one connection, as far as delivery needs it. */
export interface DeliveryPolicyEnd extends CongestedEnd {
  /** Writes a whole packet. Returns false, and has not taken it, when it has to be written the ordinary way. */
  send(packet: Buffer): boolean
}

/** What delivery needs. */
export interface DeliveryPolicyOptions {
  /** How much may wait for one client, in bytes, before those who publish to it wait. */
  readonly maxQueuedBytes: number
  /** Which of the clients for which more waits are slow, so that no more messages join it. */
  readonly congestion: Pick<Congestion<Client>, 'mayJoin'>
  readonly queueReplay: SessionQueueReplay
  readonly subscriptions: Pick<LiveSubscriptions, 'qosOf'>
  readonly tick: TickScheduler
  /** Whether a client may get a message that waited in its session, or a retained one. */
  readonly mayReceive: (client: Client, topic: string) => boolean
  /** The client's connection, if it is open. */
  readonly brokerEndOf: (client: Client) => DeliveryPolicyEnd | undefined
  /** The packet identifiers of messages to a client. */
  readonly packetIdsOf: (client: Client) => Pick<PacketIds, 'used' | 'take' | 'takeNext'>
  /** Stores that a message of a session has been sent under its packet identifier, which waits for its acknowledgement. */
  readonly noteSent: (client: Client, packet: AedesPublishPacket) => void
  /** Ends the connection of a client that reads too slowly. */
  readonly cutOff: (client: Client) => void
  /** Fields of a log line about a client. */
  readonly logFieldsOf?: (client: Client) => object
  readonly log: Logger
}

/** What is known about one connection. */
interface Outbox {
  readonly end: DeliveryPolicyEnd | undefined
  /** Whether it has its CONNACK. */
  connected: boolean
  /** Bytes of retained and queued messages in its buffer, at most: Aedes waits with those until there is room. */
  paced: number
  /** Messages that Aedes was given back and has not written yet, and the bytes of the live ones. */
  leaving: number
  pending: number
  /** Set while live messages are being dropped: from the first one until its client has read the others. */
  full: boolean
  warned: boolean
}

/** Messages with more payload than this go Aedes' way, on which the payload is not copied. In bytes. */
const maxEncodedPayload = 16 * 1024

/**
 * Decides about each message for each client: goes, is dropped, or ends the connection.
 *
 * With `maxQueuedBytes` before a client, those who publish to it wait, as long as it takes bytes; a slow one (see `Congestion`) gets no
 * more: QoS 0 is dropped until it has read all that waits. A client who asked for more than QoS 0 must not miss a message in silence: its
 * connection ends, and its session, if it keeps one, has the message.
 *
 * What goes as QoS 0 is encoded once and written from here; Aedes would encode it for each client, in a tick for each. With
 * 100 subscribers, a delivery takes 0.85 µs instead of 3.5 in bursts of 20, and 8.1 instead of 9.8 without.
 */
export class DeliveryPolicy {
  sent = 0
  dropped = 0
  readonly #options: DeliveryPolicyOptions
  readonly #encoder: PublishEncoder
  readonly #outboxes = new WeakMap<Client, Outbox>()
  #dispatched: { outbox: Outbox; size: number }[] = []

  constructor(options: DeliveryPolicyOptions) {
    this.#options = options
    this.#encoder = new PublishEncoder(options.tick)
  }

  /** Call when `client` has its CONNACK, which is the first that it may get [MQTT-3.2.0-1]. */
  connected(client: Client): void {
    this.#outboxOf(client).connected = true
  }

  /** Aedes' `authorizeForward`: the packet as Aedes is to send it, or null when that is done already, or not to be. */
  authorize(client: Client, packet: AedesPublishPacket): AedesPublishPacket | null {
    if (packet.qos > 0) {
      const granted = this.#options.subscriptions.qosOf(client, packet.topic) ?? packet.qos
      if (granted === 0 && !client.clean && isLive(packet)) {
        // On the way that this one takes, Aedes would put it into the session's queue.
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
      return this.#leave(outbox, packet, 0)
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
      if (packet.retain && !client.clean) this.#options.noteSent(client, { ...packet })
    }
    if (packet.qos > 0 || !this.#send(outbox, packet)) return this.#leave(outbox, packet, size)
    this.sent++
    return null
  }

  /** Whether a message may be written to a client to which no more should be without a second thought. */
  #mayJoin(client: Client, outbox: Outbox, packet: AedesPublishPacket, waiting: number): boolean {
    const { congestion, maxQueuedBytes } = this.#options
    if (!outbox.end) return waiting < maxQueuedBytes && !outbox.full
    return !(outbox.full && packet.qos === 0) && congestion.mayJoin(client, outbox.end, waiting)
  }

  /** Writes a live message of QoS 0, unless it would overtake what Aedes has yet to write [MQTT-4.6.0-6]. */
  #send({ end, leaving }: Outbox, packet: AedesPublishPacket): boolean {
    if (!end || leaving > 0 || packet.payload.length > maxEncodedPayload || packet.dup) return false
    return end.send(this.#encoder.encode(packet))
  }

  /**
   * Gives a message an identifier that is not in use [MQTT-2.3.1-4], unless it has one; Aedes itself would count on. Returns whether there was
   * one.
   *
   * A message that is published with RETAIN to a session is noted under it as sent: Aedes takes it for a retained message, which is in no
   * queue, and it would never leave the queue.
   */
  #identify(client: Client, packet: AedesPublishPacket): boolean {
    const ids = this.#options.packetIdsOf(client)
    const awaited = firstAcknowledgement(packet.qos)
    if (packet.messageId !== undefined) ids.take(packet.messageId, awaited)
    else if (ids.used >= maxPacketId) return false
    else packet.messageId = ids.takeNext(awaited)
    return true
  }

  /** Gives the packet back to Aedes, which writes it in a `setImmediate` that it sets when it has it. */
  #leave(outbox: Outbox, packet: AedesPublishPacket, size: number): AedesPublishPacket {
    this.sent++
    outbox.leaving++
    outbox.pending += size
    if (this.#dispatched.push({ outbox, size }) === 1) {
      process.nextTick(() => {
        const left = this.#dispatched
        this.#dispatched = []
        setImmediate(hasLeft, left)
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
    log.warn({ ...fields, topic: packet.topic }, 'the client reads too slowly; messages of QoS 0 to it are dropped')
  }

  #outboxOf(client: Client): Outbox {
    let outbox = this.#outboxes.get(client)
    if (!outbox) {
      const end = this.#options.brokerEndOf(client)
      outbox = { end, connected: false, paced: 0, leaving: 0, pending: 0, full: false, warned: false }
      this.#outboxes.set(client, outbox)
    }
    return outbox
  }
}

function hasLeft(left: readonly { outbox: Outbox; size: number }[]): void {
  for (const { outbox, size } of left) {
    outbox.leaving--
    outbox.pending -= size
  }
}

/** Whether Aedes sends `packet` because it was published now, and not as a retained message or from a session's queue. */
function isLive(packet: AedesPublishPacket): boolean {
  return Boolean(packet.brokerId) && packet.messageId === undefined
}

/** Under a broker id of its own: under the first, Aedes has it for a duplicate. */
function asQos0({ cmd, topic, payload, retain, dup, brokerCounter }: AedesPublishPacket): AedesPublishPacket {
  return { cmd, topic, payload, retain, dup, qos: 0, brokerId: 'qos0', brokerCounter }
}

function ignore(): void {}
