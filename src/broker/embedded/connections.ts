import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Client } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import type { SliceMonitor } from '../../base/slice-monitor.js'
import { internalPeer, type Peer } from '../broker.js'
import { BufferedBytes } from './buffered-bytes.js'
import { ConcatCache } from './chunk-queue.js'
import { PacketGuard } from './packet-guard.js'
import { createStreamPair, type PairEnd } from './stream-pair.js'
import { SubscribeGate } from './subscribe-gate.js'
import type { BrokerFigures } from './sys-topics.js'
import { type CreateRateLimit, Throttle } from './throttle.js'
import type { TickScheduler } from './tick-scheduler.js'

/** Bounds of one connection. */
export interface ConnectionLimits {
  /** The largest MQTT packet that a client may send, in bytes. */
  readonly maxPacketSize: number
  /** How much may wait for a client that reads slowly, in bytes. */
  readonly maxQueuedBytes: number
  /** Bytes that all connections hold, see `BufferedBytes`. Default: 256 MiB, or four of the largest packets where that is more. */
  readonly maxBufferedBytes?: number
}

/** What connections are made with. */
export interface ConnectionsOptions extends ConnectionLimits {
  /** How fast one connection may publish; left out for as fast as it can. */
  readonly createRateLimit?: CreateRateLimit | undefined
  /** Called for each time that a connection has to wait for its rateLimit. */
  readonly onThrottled?: (() => void) | undefined
  /** The quota key of a client's connections. */
  readonly accountOf: (peer: Peer) => string
  /** Told of each batchSize that is read. */
  readonly slices?: SliceMonitor | undefined
}

/** How much the broker reads ahead of one client, and the client's side of one connection, in bytes. */
const highWaterMark = 64 * 1024

/** What a client may leave unread of acknowledgements and other answers before it is not read itself, in bytes. */
const responseHighWaterMark = 64 * 1024

/** What all connections may hold together by default, in bytes. */
const defaultBufferedBytes = 256 * 1024 ** 2

/** Bytes of a client's large messages that may wait to be published before it is not read: Aedes would read on for each of them. */
const publishingMark = 256 * 1024

/** How many packets Aedes gets at a time: it works on all of them at once, at 1 to 2 KiB each. */
const batchSize = 128

/** One connection: its two ends, and what has passed on it. */
interface Connection {
  readonly peer: Peer
  /** Known when Aedes is ready for what comes after CONNECT. */
  clientId: string | undefined
  readonly client: PairEnd
  readonly broker: PairEnd
  readonly received: PacketGuard
  readonly sent: PacketGuard
  /** Whether its client has a user name. */
  isNamed: boolean
  /** Bytes of large messages that wait to be published. */
  publishing: number
}

/** What connections can count. */
type Traffic = Pick<
  BrokerFigures,
  'packetsReceived' | 'packetsSent' | 'publishesReceived' | 'bytesReceived' | 'bytesSent'
>

/** The open connections, with what passes on them. */
export class Connections {
  readonly #options: ConnectionsOptions
  readonly #buffered: BufferedBytes
  readonly #tick: TickScheduler
  readonly #concatCache: ConcatCache
  readonly #subscribeGate = new SubscribeGate()
  readonly #open = new Map<Duplex, Connection>()
  readonly #ready = new WeakSet<Duplex>()
  readonly #held = new WeakMap<Duplex, () => void>()
  #past: Traffic = { packetsReceived: 0, packetsSent: 0, publishesReceived: 0, bytesReceived: 0, bytesSent: 0 }

  /** @param tick when clients get what was written to them */
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
    const most = Math.min(batchSize, rateLimit?.batchSize ?? batchSize)
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
        const finding = received.scan(chunk, most, mayComplete)
        throttle?.spend(received.publishes - published, received.bytes - before)
        if (finding !== undefined) return new GatewayError(finding)
        const size = received.unfinished
        if (size !== held && !isInternal) {
          const holds = this.#buffered.hold(account, held, size)
          if (holds === undefined) return new GatewayError('packets-too-many-from-address')
          held = holds
        }
        return received.bytes - before
      },
      // Not the messages: a client that takes a long download is heard, and its PINGREQ answered.
      pauseInput: () =>
        written.responseBytes - sent.responseBytes >= responseHighWaterMark ||
        throttle?.isPaused === true ||
        isWaiting ||
        connection.publishing >= publishingMark,
      deferEnd: release => this.#deferEnd(broker, received, release),
      onWritten: chunk => written.scan(chunk),
      onSent: chunk => sent.scan(chunk),
      tick: this.#tick,
      concatCache: this.#concatCache,
    })
    const state = { clientId: undefined, isNamed: false, publishing: 0 }
    const connection: Connection = { peer, client, broker, received, sent, ...state }
    this.#open.set(broker, connection)
    const buffering = {
      account,
      get waitingBytes() {
        return broker.waitingBytes
      },
      get deliveredBytes() {
        return broker.deliveredBytes
      },
      cutOff: () => this.#cutOff(connection, new GatewayError('client-too-slow')),
    }
    if (!isInternal) this.#buffered.add(buffering)
    broker.once('close', () => {
      this.#buffered.hold(account, held, 0)
      this.#buffered.delete(buffering)
      throttle?.stop()
      this.#past = sum(this.#past, connection)
      this.#open.delete(broker)
    })
    return connection
  }

  /**
   * Aedes forgets what came behind a CONNECT that it is still at work on when the end comes right after it: a client may
   * send all it has to say in one go, and close. So the end waits for CONNACK, where there was a CONNECT.
   */
  #deferEnd(broker: Duplex, received: PacketGuard, release: () => void): void {
    if (received.packets === 0 || this.#ready.has(broker)) release()
    else this.#held.set(broker, release)
  }

  /** Call when Aedes is ready for what comes after CONNECT. */
  ready({ conn, id }: Client): void {
    this.#ready.add(conn)
    const connection = this.#open.get(conn)
    if (connection) connection.clientId = id
    this.#held.get(conn)?.()
  }

  /** Ends a connection at once, and drops what waits for its client. */
  cutOff({ conn }: Client, ending: GatewayError): void {
    const connection = this.#open.get(conn)
    if (connection) this.#cutOff(connection, ending)
    else conn.destroy(ending)
  }

  #cutOff({ client, broker }: Connection, ending: GatewayError): void {
    client.destroy(ending)
    broker.destroy(ending)
  }

  /** Says to the client's side why its connection is about to end, after all that was written to it. */
  setCloseReason({ conn }: Client, ending: GatewayError): void {
    const connection = this.#open.get(conn)
    if (connection) connection.client.closeReason = ending
  }

  /** Counts bytes of a client's large messages that wait to be published; it is not read while there are many. */
  publishing({ conn }: Client, bytes: number): void {
    const connection = this.#open.get(conn)
    if (!connection) return
    connection.publishing += bytes
    if (bytes < 0 && connection.publishing < publishingMark) connection.client.pass()
  }

  /** Notes that a client has a user name. */
  named({ conn }: Client): void {
    const connection = this.#open.get(conn)
    if (connection) connection.isNamed = true
  }

  /** Who is at the other end; undefined when the connection is closed. */
  peerOf({ conn }: Client): Peer | undefined {
    return this.#open.get(conn)?.peer
  }

  /** Whether a client has ended its connection, or it is closed. */
  isGone({ conn }: Client): boolean {
    const client = this.#open.get(conn)?.client
    return client === undefined || client.destroyed || client.writableEnded
  }

  /** The broker's end of a client's connection; undefined when that is closed. */
  brokerEndOf({ conn }: Client): PairEnd | undefined {
    return this.#open.get(conn)?.broker
  }

  figures(): Traffic {
    return [...this.#open.values()].reduce(sum, this.#past)
  }

  /** Aedes has ended them all by now, after what was written; those that it never knew by name are left. */
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
