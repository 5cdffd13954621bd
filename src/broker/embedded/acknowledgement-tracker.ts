import type { AedesPublishPacket, Client } from 'aedes'

/** A watch of the acknowledgements of one message. */
export interface AcknowledgementWatch {
  /** How long, in milliseconds. */
  readonly within: number
  /** Called for each client that has acknowledged the message: with PUBACK, or for QoS 2 with PUBCOMP. */
  readonly onAcknowledged: (client: AcknowledgingClient) => void
}

/** A client that has acknowledged a message. */
export interface AcknowledgingClient {
  readonly clientId: string
  readonly user: string | undefined
}

interface Tracked {
  readonly brokerId: string
  readonly onAcknowledged: AcknowledgementWatch['onAcknowledged']
  /** Monotonic, in milliseconds. */
  readonly until: number
}

/** Interval of removing messages whose time is over, in milliseconds. */
const sweepInterval = 60_000

/** Tracks which clients acknowledge single messages, from this process on: those of messages sent by an earlier one are not known. */
export class AcknowledgementTracker {
  readonly #describe: (client: Client) => AcknowledgingClient
  /** By the broker's counter. */
  readonly #tracked = new Map<number, Tracked>()
  /** The tracked messages that were sent to a client, by packet identifier. */
  readonly #sent = new WeakMap<Client, Map<number, Tracked>>()
  #timer: NodeJS.Timeout | undefined

  constructor(describe: (client: Client) => AcknowledgingClient) {
    this.#describe = describe
  }

  /** Tracks a message. Call before it is delivered. */
  track(packet: AedesPublishPacket, { within, onAcknowledged }: AcknowledgementWatch): void {
    const { brokerId, brokerCounter } = packet
    this.#tracked.set(brokerCounter, { brokerId, onAcknowledged, until: performance.now() + within })
    this.#timer ??= setInterval(() => this.#sweep(), sweepInterval).unref()
  }

  /** Call when a message is sent to a client, with its packet identifier. Costs nothing while no message is tracked. */
  sent(client: Client, messageId: number, packet: AedesPublishPacket): void {
    if (this.#tracked.size === 0) return
    const tracked = this.#tracked.get(packet.brokerCounter)
    const sent = this.#sent.get(client)
    // Not of an earlier run of the broker, which counted from 1, too.
    if (!tracked || tracked.brokerId !== packet.brokerId) sent?.delete(messageId)
    else if (sent) sent.set(messageId, tracked)
    else this.#sent.set(client, new Map([[messageId, tracked]]))
  }

  /** Call when a client has acknowledged a packet identifier. @param isSuccess whether with a reason code for success */
  acknowledged(client: Client, messageId: number, isSuccess: boolean): void {
    if (this.#tracked.size === 0) return
    const sent = this.#sent.get(client)
    const tracked = sent?.get(messageId)
    if (!tracked) return
    sent?.delete(messageId)
    if (isSuccess && performance.now() < tracked.until) tracked.onAcknowledged(this.#describe(client))
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #sweep(): void {
    const now = performance.now()
    for (const [key, { until }] of this.#tracked) if (until <= now) this.#tracked.delete(key)
    if (this.#tracked.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
