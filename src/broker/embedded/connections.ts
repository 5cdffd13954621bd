import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Client } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import type { SliceMonitor } from '../../base/slice-monitor.js'
import { reasonCodes } from '../../mqtt/reason-codes.js'
import { internalPeer, type Peer } from '../broker.js'
import { BufferedBytes } from './buffered-bytes.js'
import { ConcatCache } from './chunk-queue.js'
import { PacketGuard } from './packet-guard.js'
import { createStreamPair, type PairEnd } from './stream-pair.js'
import { SubscribeGate } from './subscribe-gate.js'
import type { BrokerFigures } from './sys-topics.js'
import { type CreateRateLimit, Throttle } from './throttle.js'
import type { TickScheduler } from './tick-scheduler.js'

export interface ConnectionLimits {
  /** The largest MQTT packet that a client may send, in bytes. */
  readonly maxPacketSize: number
  /** Bytes that may wait for a slow client. */
  readonly maxQueuedBytes: number
  /** Bytes that all connections buffer (`BufferedBytes`). Default: 256 MiB, or four of the largest packets if that is more. */
  readonly maxBufferedBytes?: number
}

export interface ConnectionsOptions extends ConnectionLimits {
  /** Publish rate limit of each connection. Default: none. */
  readonly createRateLimit?: CreateRateLimit | undefined
  /** Called for each time that a connection has to wait for its rateLimit. */
  readonly onThrottled?: (() => void) | undefined
  readonly accountOf: (peer: Peer) => string
  /** Tells a client of MQTT 5 why its connection ends, and ends it; returns false for others. */
  readonly tellWhy: (client: Client, reason: GatewayError) => boolean
  readonly slices?: SliceMonitor | undefined
}

/** Read-ahead of both sides of a connection, in bytes. */
const highWaterMark = 64 * 1024

/** Unread acknowledgements and other responses above which a client is not read, in bytes. */
const responseHighWaterMark = 64 * 1024

/** Bytes that all connections may buffer, by default. */
const defaultBufferedBytes = 256 * 1024 ** 2

/** Bytes of a client's large messages in progress above which it is not read: Aedes would read on for each. */
const publishingHighWaterMark = 256 * 1024

/** Packets passed to Aedes at a time: it processes them concurrently, at 1 to 2 KiB each. */
const batchSize = 128

interface Connection {
  readonly peer: Peer
  /** Known when Aedes has processed CONNECT. */
  clientId: string | undefined
  /** Lets the broker's end see that the client has ended its side before that. */
  deferredEnd: (() => void) | undefined
  readonly client: PairEnd
  readonly broker: PairEnd
  readonly received: PacketGuard
  readonly sent: PacketGuard
  /** Whether its client has a user. */
  isNamed: boolean
  /** Bytes of large messages in progress. */
  publishing: number
  /** Bytes of messages that wait for its acknowledgements. */
  unsentBytes: () => number
}

type Traffic = Pick<
  BrokerFigures,
  'packetsReceived' | 'packetsSent' | 'publishesReceived' | 'bytesReceived' | 'bytesSent'
>

/** The open connections, with their limits and counters. */
export class Connections {
  readonly #options: ConnectionsOptions
  readonly #buffered: BufferedBytes
  readonly #tick: TickScheduler
  readonly #concatCache: ConcatCache
  readonly #subscribeGate = new SubscribeGate()
  readonly #open = new Map<Duplex, Connection>()
  #closedTraffic: Traffic = { packetsReceived: 0, packetsSent: 0, publishesReceived: 0, bytesReceived: 0, bytesSent: 0 }

  /** @param tick when clients receive written bytes */
  constructor(options: ConnectionsOptions, tick: TickScheduler) {
    const { maxBufferedBytes = defaultBufferedBytes, maxPacketSize } = options
    this.#options = options
    this.#buffered = new BufferedBytes(Math.max(maxBufferedBytes, 4 * maxPacketSize))
    this.#tick = tick
    this.#concatCache = new ConcatCache(tick)
  }

  open(peer: Peer): Connection {
    const { createRateLimit, onThrottled = () => {}, maxQueuedBytes, slices } = this.#options
    const isInternal = peer === internalPeer
    const account = isInternal ? '' : this.#options.accountOf(peer)
    let held = 0
    const rateLimit = isInternal ? undefined : createRateLimit?.(peer, () => connection.isNamed)
    const throttle = rateLimit && new Throttle(rateLimit, onThrottled, () => client.pass())
    const maxPackets = Math.min(batchSize, rateLimit?.batchSize ?? batchSize)
    const received = new PacketGuard(this.#options.maxPacketSize)
    const sent = new PacketGuard(Number.POSITIVE_INFINITY)
    const written = new PacketGuard(Number.POSITIVE_INFINITY)
    let [isWaiting, isGranted] = [false, false]
    const grant = (): void => {
      isWaiting = false
      isGranted = true
      client.pass()
    }
    const mayComplete = (bytes: number): boolean => {
      if (!isGranted && !isInternal) isWaiting = !this.#subscribeGate.request(account, bytes, grant)
      isGranted = false
      return !isWaiting
    }
    const { client, broker } = createStreamPair({
      readableHighWaterMark: highWaterMark,
      clientHighWaterMark: highWaterMark,
      brokerHighWaterMark: maxQueuedBytes,
      inspectIn: chunk => {
        slices?.begin('mqtt packets', connection)
        const before = received.bytes
        const published = received.publishes
        const finding = received.scan(chunk, maxPackets, mayComplete)
        throttle?.spend(received.publishes - published, received.bytes - before)
        const refuse = (reason: GatewayError): number | GatewayError =>
          broker.client && this.#options.tellWhy(broker.client, reason) ? chunk.length : reason
        if (finding === 'not-mqtt')
          return refuse(new GatewayError(finding, { mqttReason: reasonCodes.malformedPacket }))
        if (finding !== undefined) return refuse(new GatewayError(finding))
        const size = received.unfinished
        if (size !== held && !isInternal) {
          const holds = this.#buffered.hold(account, held, size)
          if (holds === undefined) return refuse(new GatewayError('packets-too-many-from-address'))
          held = holds
        }
        return received.bytes - before
      },
      // Without messages: a client with a long download still gets its PINGRESP.
      pauseInput: () =>
        written.responseBytes - sent.responseBytes >= responseHighWaterMark ||
        throttle?.isPaused === true ||
        isWaiting ||
        connection.publishing >= publishingHighWaterMark,
      // Until CONNACK: Aedes would drop the packets behind a CONNECT that it is processing, and a client may send all of them at once and close.
      deferEnd: release => {
        if (received.packets === 0 || connection.clientId !== undefined) release()
        else connection.deferredEnd = release
      },
      onWritten: chunk => written.scan(chunk),
      onSent: chunk => sent.scan(chunk),
      tick: this.#tick,
      concatCache: this.#concatCache,
    })
    const state = { clientId: undefined, deferredEnd: undefined, isNamed: false, publishing: 0, unsentBytes: () => 0 }
    const connection: Connection = { peer, client, broker, received, sent, ...state }
    this.#open.set(broker, connection)
    const cutOff = (): void => this.#cutOff(connection, new GatewayError('client-too-slow'))
    const end = {
      get waitingBytes() {
        return broker.waitingBytes + connection.unsentBytes()
      },
      get deliveredBytes() {
        return broker.deliveredBytes
      },
    }
    const buffering = { account, end, cutOff }
    if (!isInternal) this.#buffered.add(buffering)
    // Not of the broker's end: what it has written still waits for a client that does not read.
    client.once('close', () => this.#buffered.delete(buffering))
    broker.once('close', () => {
      this.#buffered.hold(account, held, 0)
      throttle?.stop()
      this.#closedTraffic = sum(this.#closedTraffic, connection)
      this.#open.delete(broker)
    })
    return connection
  }

  /** Call when Aedes has processed CONNECT. */
  ready(client: Client): void {
    const connection = this.of(client)
    if (connection) connection.clientId = client.id
    connection?.deferredEnd?.()
  }

  /** Closes a connection at once, without the waiting bytes. */
  cutOff(client: Client, reason: GatewayError): void {
    const connection = this.of(client)
    if (connection) this.#cutOff(connection, reason)
    else client.conn.destroy(reason)
  }

  #cutOff({ client, broker }: Connection, reason: GatewayError): void {
    client.destroy(reason)
    broker.destroy(reason)
  }

  /** Sets why a client's connection is about to close, after the written bytes. */
  setCloseReason({ conn }: Client, reason: GatewayError): void {
    const connection = this.#open.get(conn)
    if (connection) connection.client.closeReason = reason
  }

  /** Counts bytes of a client's large messages in progress; it is not read while there are many. */
  publishing({ conn }: Client, bytes: number): void {
    const connection = this.#open.get(conn)
    if (!connection) return
    connection.publishing += bytes
    if (bytes < 0 && connection.publishing < publishingHighWaterMark) connection.client.pass()
  }

  /** The clients that have sent their CONNECT. */
  *clients(): Generator<Client> {
    for (const { broker } of this.#open.values()) if (broker.client) yield broker.client
  }

  /** The connection of a client; `undefined` when it is closed. */
  of({ conn }: Client): Connection | undefined {
    return this.#open.get(conn)
  }

  figures(): Traffic {
    return [...this.#open.values()].reduce(sum, this.#closedTraffic)
  }

  /** Closes the connections without a client id; Aedes has closed the others. */
  async close(): Promise<void> {
    await Promise.all(
      [...this.#open.values()].map(async ({ broker }) => {
        const closed = once(broker, 'close')
        broker.destroy()
        await closed
      }),
    )
  }
}

function sum(traffic: Traffic, { received, sent }: Connection): Traffic {
  return {
    packetsReceived: traffic.packetsReceived + received.packets,
    packetsSent: traffic.packetsSent + sent.packets,
    publishesReceived: traffic.publishesReceived + received.publishes,
    bytesReceived: traffic.bytesReceived + received.bytes,
    bytesSent: traffic.bytesSent + sent.bytes,
  }
}
