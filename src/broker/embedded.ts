import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { AedesOptions, Client } from 'aedes'
import { Ending } from '../endings.js'
import type { Logger } from '../log.js'
import { version } from '../version.js'
import type { Broker } from './broker.js'
import { DurableAedes } from './durable-aedes.js'
import { Forwarding } from './forwarding.js'
import { type LevelBase, openLevel } from './level-store.js'
import { PacketGuard } from './packet-guard.js'
import { Store } from './store.js'
import { createStreamPair } from './stream-pair.js'
import { type BrokerFigures, startSysTopics } from './sys-topics.js'

/** What the embedded broker needs of the configuration. */
export interface EmbeddedOptions {
  /** Where sessions and retained messages are kept, or `none` for memory only. */
  readonly data: string
  /** The largest MQTT packet that a client may send, in bytes. */
  readonly maxPacketSize: number
  /** How much may wait for a client that reads slowly, in bytes. */
  readonly maxQueuedBytes: number
}

/** The broker inside this process. */
export interface EmbeddedBroker extends Broker {
  /** What it counts, as it is now. */
  figures(): BrokerFigures
}

/** How much the broker reads ahead of one client, and the client's side of one connection, in bytes. */
const highWaterMark = 64 * 1024

const limits = {
  // Paho's MQTT 3.1 fallback comes with client ids of any length, which every other broker takes.
  maxClientsIdLength: 65_535,
  // Packets that came in the same read as CONNECT; bytes bound them already (`highWaterMark`). 42 would end the
  // connection of a client that comes back and repeats what was in flight without waiting for CONNACK, as it may.
  queueLimit: 65_535,
  // No CONNECT: as long as a tunnel gives it (limits.connectTimeout).
  connectTimeout: 10_000,
  // Off. It would end a client that takes longer than that for one large retained message; one that reads nothing is
  // bounded by maxQueuedBytes, and found by its keep-alive.
  drainTimeout: 0,
} satisfies AedesOptions

/**
 * Starts the broker: Aedes, which speaks MQTT 3.1 and 3.1.1, and answers MQTT 5 with "unacceptable protocol version".
 *
 * @throws {BrokerStartError} when its state on disk cannot be opened
 */
export async function createEmbedded(options: EmbeddedOptions, log: Logger): Promise<EmbeddedBroker> {
  const disk = options.data === 'none' ? undefined : await openLevel(options.data)
  const { base, sessions } = disk ?? { base: await memoryBase(), sessions: [] }
  const onError = (error: unknown): void => log.error({ err: error }, 'the broker could not store or load something')
  const store = new Store({ base, sessions, onError })
  const connections = new Connections(options)
  const forwarding = new Forwarding({
    maxQueuedBytes: options.maxQueuedBytes,
    catchUps: store.catchUps,
    cutOff: client => connections.cutOff(client),
    log,
  })
  const aedes = new DurableAedes(store, { ...limits, ...handlers(forwarding), id: brokerId(disk) })
  const own = `$SYS/${aedes.id}/`
  aedes.authorizeForward = (client, packet) =>
    // Aedes' own announcements, between the nodes of a cluster: they name clients and what they subscribe to.
    packet.topic.startsWith(own) ? null : forwarding.authorize(client, packet)
  aedes.on('clientReady', client => connections.ready(client))
  aedes.on('error', onError)
  const onClientError = (client: Client, error: Error): void =>
    log.debug({ err: error, clientId: client.id }, 'the broker ended a connection')
  aedes.on('clientError', onClientError)
  aedes.on('connectionError', onClientError)
  await aedes.listen()

  const figures = (): BrokerFigures => ({
    ...connections.figures(),
    connected: aedes.connectedClients,
    publishesSent: forwarding.sent,
    publishesDropped: forwarding.dropped,
  })
  const stopSysTopics = startSysTopics(version, figures, (topic, payload) =>
    aedes.publish({ cmd: 'publish', topic, payload: Buffer.from(payload), qos: 0, retain: true, dup: false }, () => {}),
  )

  const shut = async (): Promise<void> => {
    stopSysTopics()
    await new Promise<void>(resolve => aedes.close(() => resolve()))
    await connections.close()
    await disk?.close()
  }
  let shutting: Promise<void> | undefined
  return {
    name: 'embedded',
    figures,
    async open() {
      if (aedes.closed) throw new Ending('shutting-down')
      const { client, broker } = connections.open()
      aedes.handle(broker)
      return client
    },
    close() {
      shutting ??= shut()
      return shutting
    },
  }
}

async function memoryBase(): Promise<LevelBase['base']> {
  const { default: MemoryPersistence } = await import('aedes-persistence/asyncPersistence.js')
  return new MemoryPersistence()
}

/** Queues are ordered by it, so that it must sort by start time; messages are told apart by it, so that it is unique. */
function brokerId(disk: LevelBase | undefined): string {
  return `mqway-${String(disk?.run ?? 1).padStart(10, '0')}`
}

/** Aedes' other questions. */
function handlers(forwarding: Forwarding): AedesOptions {
  const nameless = new WeakSet<Client>()
  return {
    preConnect(client, packet, done) {
      if (packet.clientId === '' && packet.clean === false) nameless.add(client)
      done(null, true)
    },
    authenticate(client, _username, _password, done) {
      // [MQTT-3.1.3-8]: a session that nobody could ever come back to. Return code 2: identifier rejected.
      if (nameless.has(client)) done(Object.assign(new Error('a session needs a client id'), { returnCode: 2 }), false)
      else done(null, true)
    },
    authorizeSubscribe(client, subscription, done) {
      forwarding.subscribed(client, subscription)
      done(null, subscription)
    },
  }
}

interface Connection {
  readonly client: Duplex
  readonly broker: Duplex
  readonly received: PacketGuard
  readonly sent: PacketGuard
}

type Traffic = Pick<
  BrokerFigures,
  'packetsReceived' | 'packetsSent' | 'publishesReceived' | 'bytesReceived' | 'bytesSent'
>

/** The open connections, with what passes on them. */
class Connections {
  readonly #options: EmbeddedOptions
  readonly #open = new Map<Duplex, Connection>()
  readonly #ready = new WeakSet<Duplex>()
  readonly #held = new WeakMap<Duplex, () => void>()
  #past: Traffic = { packetsReceived: 0, packetsSent: 0, publishesReceived: 0, bytesReceived: 0, bytesSent: 0 }

  constructor(options: EmbeddedOptions) {
    this.#options = options
  }

  open(): Connection {
    const received = new PacketGuard(this.#options.maxPacketSize)
    const sent = new PacketGuard(Number.POSITIVE_INFINITY)
    const { client, broker } = createStreamPair({
      readableHighWaterMark: highWaterMark,
      clientHighWaterMark: highWaterMark,
      brokerHighWaterMark: this.#options.maxQueuedBytes,
      inspectIn: chunk => {
        const finding = received.scan(chunk)
        return finding === undefined ? undefined : new Ending(finding)
      },
      holdEnd: release => this.#holdEnd(broker, received, release),
      inspectOut: chunk => {
        sent.scan(chunk)
      },
    })
    const connection = { client, broker, received, sent }
    this.#open.set(broker, connection)
    broker.once('close', () => {
      this.#past = sum(this.#past, connection)
      this.#open.delete(broker)
    })
    return connection
  }

  /**
   * Aedes forgets what came behind a CONNECT that it is still at work on when the end comes right after it: a client may
   * send all it has to say in one go, and close. So the end waits for CONNACK, where there was a CONNECT.
   */
  #holdEnd(broker: Duplex, received: PacketGuard, release: () => void): void {
    if (received.packets === 0 || this.#ready.has(broker)) release()
    else this.#held.set(broker, release)
  }

  /** Call when Aedes is ready for what comes after CONNECT. */
  ready({ conn }: Client): void {
    this.#ready.add(conn)
    this.#held.get(conn)?.()
  }

  /** Ends a connection whose client reads too slowly, and drops what waits for it: it would be read at that pace too. */
  cutOff(client: Client): void {
    const error = new Ending('broker-lost', { hint: 'the client reads too slowly' })
    this.#open.get(client.conn)?.client.destroy(error)
    client.conn.destroy(error)
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
