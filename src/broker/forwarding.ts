import type { AedesPublishPacket, Client, Subscription } from 'aedes'
import type { Logger } from '../log.js'
import type { CatchUps } from './catch-ups.js'
import { GrantedQos } from './granted-qos.js'

/** What forwarding needs. */
export interface ForwardingOptions {
  /** How much may wait for one client, in bytes, before live messages no longer join it. */
  readonly maxQueuedBytes: number
  readonly catchUps: CatchUps
  /** How much waits for a client now, in bytes. */
  readonly waiting: (client: Client) => number
  /** Ends the connection of a client that reads too slowly. */
  readonly cutOff: (client: Client) => void
  readonly log: Logger
}

/** What is known about one connection. */
interface Outbox {
  /** Bytes of retained and queued messages in its buffer, at most: Aedes waits with those until there is room. */
  paced: number
  /** Bytes that were let through in this turn of the event loop, which Aedes writes in the next. */
  pending: number
  turn: number
  /** Set while live messages are being dropped: from the first one until its client has read the others. */
  full: boolean
  warned: boolean
}

/**
 * Decides about each message for each client: goes, is dropped, or ends the connection.
 *
 * The bound per client is `maxQueuedBytes` and the message that crosses it. Beyond it, QoS 0 is dropped until the client
 * has read all that waits. A client who asked for more than QoS 0 must not miss a message in silence: its connection
 * ends, and its session, if it keeps one, has the message.
 */
export class Forwarding {
  sent = 0
  dropped = 0
  readonly #options: ForwardingOptions
  #turn = 0
  #turning = false
  readonly #granted = new GrantedQos()
  readonly #outboxes = new WeakMap<Client, Outbox>()

  constructor(options: ForwardingOptions) {
    this.#options = options
  }

  /**
   * Call for each subscription, also a restored one. Returns it as Aedes is to have it: with QoS 2, because Aedes knows
   * a message's QoS by one filter of several that match. Here the highest of them counts [MQTT-3.3.5-1].
   */
  subscribed(client: Client, subscription: Subscription): Subscription {
    this.#granted.grant(client, subscription)
    return { ...subscription, qos: 2 }
  }

  unsubscribed(client: Client, filters: readonly string[]): void {
    this.#granted.release(client, filters)
  }

  /** Aedes' `authorizeForward`: the packet as it is to be sent, or null. */
  authorize(client: Client, packet: AedesPublishPacket): AedesPublishPacket | null {
    const outbox = this.#outboxOf(client)
    const granted = this.#granted.of(client, packet.topic) ?? packet.qos
    if (granted < packet.qos) {
      if (granted === 0 && !client.clean && isLive(packet)) {
        // On the way that this one takes, Aedes would put it into the session's queue.
        client.publish(asQos0(packet), ignore)
        return null
      }
      // [MQTT-3.8.4-6]
      packet.qos = granted
    }
    const size = packet.topic.length + packet.payload.length
    const buffered = this.#options.waiting(client)
    if (outbox.paced > buffered) outbox.paced = buffered
    if (!isLive(packet)) {
      outbox.paced += size
    } else if (packet.qos > 0 && !this.#options.catchUps.mayPass(client, packet)) {
      return null
    } else {
      this.#startTurn(outbox)
      const waiting = buffered - outbox.paced + outbox.pending
      if (waiting <= 0) outbox.full = false
      if (waiting >= this.#options.maxQueuedBytes || (outbox.full && packet.qos === 0)) {
        this.#overflow(client, outbox, packet)
        return null
      }
      outbox.pending += size
    }
    this.sent++
    return packet
  }

  #startTurn(outbox: Outbox): void {
    if (!this.#turning) {
      this.#turning = true
      setImmediate(() => {
        this.#turning = false
        this.#turn++
      })
    }
    if (outbox.turn === this.#turn) return
    outbox.turn = this.#turn
    outbox.pending = 0
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
    this.#options.log.warn({ clientId: client.id }, 'the client reads too slowly; messages of QoS 0 to it are dropped')
  }

  #outboxOf(client: Client): Outbox {
    let outbox = this.#outboxes.get(client)
    if (!outbox) {
      outbox = { paced: 0, pending: 0, turn: this.#turn, full: false, warned: false }
      this.#outboxes.set(client, outbox)
    }
    return outbox
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
