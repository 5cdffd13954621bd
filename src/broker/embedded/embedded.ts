import type { AedesOptions, Client } from 'aedes'
import { ErrorLog } from '../../base/error-log.js'
import { GatewayError } from '../../base/errors.js'
import { FairQuota } from '../../base/fair-quota.js'
import type { Logger } from '../../base/log.js'
import type { DeniedAction, RetainedFigures } from '../../base/metrics.js'
import type { SessionMetrics } from '../../base/session-metrics.js'
import type { SliceMonitor } from '../../base/slice-monitor.js'
import type { SubscriptionBound, SubscriptionMetrics } from '../../base/subscription-metrics.js'
import { TimeSlicer } from '../../base/time-slicer.js'
import { version } from '../../base/version.js'
import type { ReservedClientIds } from '../../mqtt/reserved-client-ids.js'
import { type Broker, internalPeer } from '../broker.js'
import type { Authorizer } from './authorizer.js'
import { Congestion } from './congestion.js'
import { ConnectAuthorizer } from './connect-authorizer.js'
import { type ConnectionLimits, Connections } from './connections.js'
import { DeliveryPolicy } from './delivery-policy.js'
import { DurableAedes } from './durable-aedes.js'
import { type LevelBackend, openLevel } from './level-backend.js'
import { LiveSubscriptions } from './live-subscriptions.js'
import type { AcceptedMessage, MessageSink } from './message-sink.js'
import { Store, type StoreLimits } from './persistence.js'
import type { Retained } from './retained.js'
import { RetainedDelivery } from './retained-delivery.js'
import { clearSessionPresent } from './session-present.js'
import { memoryBackend, type StorageBackend } from './storage-backend.js'
import { type PacketParser, readStrictly } from './strict-packets.js'
import { Subscribers, type SubscriptionWatcher } from './subscribers.js'
import { noSubscription, type SubscriptionLimits } from './subscription-limits.js'
import { type BrokerFigures, startSysTopics } from './sys-topics.js'
import { Takeovers } from './takeovers.js'
import type { CreateRateLimit } from './throttle.js'
import { TickScheduler } from './tick-scheduler.js'
import { maxUnreleased, UnreleasedIds } from './unreleased-ids.js'

/** What the embedded broker needs of the configuration. */
export interface EmbeddedOptions extends ConnectionLimits, StoreLimits {
  /** Where sessions and retained messages are kept, or `none` for memory only. */
  readonly data: string
  /** When a connection without a CONNECT ends, in milliseconds: where no tunnel has ended it before, and said why. */
  readonly connectTimeout: number
}

/** What else the embedded broker asks and tells; all of it may be left out. */
export interface EmbeddedHooks {
  /** Who may connect, and do what. Left out: everybody, everything. */
  readonly gatekeeper?: Authorizer | undefined
  /** Told what the event loop works on. */
  readonly slices?: SliceMonitor | undefined
  /** Client ids that nobody but the program itself gets. */
  readonly reservedClientIds?: ReservedClientIds | undefined
  /** How fast one connection may publish. Left out: as fast as it can. */
  readonly newPace?: CreateRateLimit | undefined
  /** Called when a connection has to wait for its pace. */
  readonly onDelay?: (() => void) | undefined
  /** Called for each message and each filter that is refused. */
  readonly onDenied?: ((action: DeniedAction) => void) | undefined
  /** Takes turns with the program's other long tasks. */
  readonly slicer?: TimeSlicer | undefined
  /** The key by which clients share what is bounded for all: their user, or else their network. Left out: user or address. */
  readonly accountOf?: ((user: string | undefined, address: string) => string) | undefined
  /** Given the function that reads the figures of retained messages. */
  readonly watchRetained?: ((read: () => RetainedFigures) => void) | undefined
  /** Told who subscribes to what; of the program's own connections it is not. */
  readonly subscriptions?: SubscriptionWatcher | undefined
  readonly sessions?: SessionMetrics | undefined
  readonly filters?: SubscriptionMetrics | undefined
  /** The network of an address, whose clients without a name count together. Left out: each address by itself. */
  readonly networkOf?: ((address: string) => string) | undefined
}

declare module 'aedes' {
  interface Client {
    _keepaliveTimer: NodeJS.Timeout | null
    readonly _parser: PacketParser
    _inboundInflight: Set<number>
  }
}

/** The broker inside this process. */
export interface EmbeddedBroker extends Broker {
  /** What it counts, as it is now. */
  figures(): BrokerFigures
  /**
   * Has each message appended to a journal: once, when it leaves for its subscribers. One sink at a time.
   *
   * @returns `resume` is to be called when the sink is not full any more; `idle` resolves when the broker has no message that is still to
   *   be appended
   */
  attach(sink: MessageSink): { readonly resume: () => void; readonly idle: () => Promise<void> }
  /**
   * Publishes a message of the program itself.
   *
   * @param account quota key of whoever publishes it; left out for the program itself
   * @param append appends it, in place of the sink's `append`, where a sink is attached
   * @returns resolves when the message is stored and `append` says that it may be acknowledged
   * @throws {Error} rejects where the message cannot be stored
   */
  publish(message: AcceptedMessage, account: string | undefined, append: MessageSink['append']): Promise<void>
  /** The retained messages that one of `filters` matches, each once, in any order, a few at a time. */
  retained(filters: readonly string[]): AsyncGenerator<readonly AcceptedMessage[], void, void>
}

/** The quota key of the program itself. */
const ownAccount = 'mqway'

/** How much may wait for a client for which publishers wait: so many times `maxQueuedBytes`, or so many of the largest packets. */
const mostQueued = 16
const mostQueuedPackets = 2

/** How often sessions without a client are looked for, in milliseconds. */
const expiryInterval = 3_600_000

const limits = {
  // Paho's MQTT 3.1 fallback comes with client ids of any length, which every other broker takes.
  maxClientsIdLength: 65_535,
  // Packets that came in the same read as CONNECT; bytes bound them already (see `connections.ts`). 42 would end the
  // connection of a client that comes back and repeats what was in flight without waiting for CONNACK, as it may.
  queueLimit: 65_535,
  // Packet identifiers of QoS 2 that wait for PUBREL are bounded before they get there (`UnreleasedIds`).
  maxInflightInbound: 0,
  // As good as off. It would end a client that takes longer than that for one large retained message; one that reads nothing is found
  // otherwise (see `Congestion`). With 0, each message that waits would be a listener of its own, which take a time that grows with the square.
  drainTimeout: 2 ** 31 - 1,
} satisfies AedesOptions

/**
 * Starts the broker: Aedes, which speaks MQTT 3.1 and 3.1.1, and answers MQTT 5 with "unacceptable protocol version".
 *
 * @throws {StartError} when its state on disk cannot be opened
 */
export async function createEmbedded(
  options: EmbeddedOptions,
  log: Logger,
  hooks: EmbeddedHooks = {},
): Promise<EmbeddedBroker> {
  const disk = options.data === 'none' ? undefined : await openLevel(options.data)
  const base = disk ?? (await inMemory())
  const errors = new ErrorLog(log, 'the broker could not store or load something')
  const onError = (error: unknown): void => errors.write(error)
  const maySubscribe = (client: object, filter: string): boolean => admissions.maySubscribe(client, filter)
  const { sessions: metrics, slicer = new TimeSlicer(), networkOf = address => address } = hooks
  const store = new Store({
    base,
    limits: options,
    maySubscribe,
    holderOf: client => admissions.quotaKeyOf(client),
    slicer,
    onEnded: metrics?.ended,
    onDropped: metrics?.dropped,
    log,
    onError,
  })
  metrics?.watch(() => store.sessions.figures)
  hooks.filters?.watch(() => store.grants.figures)
  const turnEnd = new TickScheduler()
  const { gatekeeper, reservedClientIds, newPace, onDelay, onDenied = () => {} } = hooks
  const { accountOf: nameAccount = (user, address) => user ?? address } = hooks
  const connections = new Connections(
    {
      ...options,
      newPace,
      onDelay,
      slices: hooks.slices,
      accountOf: ({ address }) => nameAccount(undefined, address),
    },
    turnEnd,
  )
  const admissions = new ConnectAuthorizer({
    gatekeeper,
    reservedClientIds,
    bounds: options,
    owners: store.owners,
    sessions: store.sessions,
    networkOf,
    peerOf: client => connections.peerOf(client),
    isGone: client => connections.isGone(client),
    explain: (client, ending) => connections.explain(client, ending),
    end: (client, ending) => connections.cutOff(client, ending),
    onDenied,
    log,
  })
  const takeovers = new Takeovers({
    peerOf: client => connections.peerOf(client),
    explain: (client, ending) => connections.explain(client, ending),
    log,
  })
  const subscriptions = new LiveSubscriptions(slicer)
  const accounts = new WeakMap<Client, string>()
  const accountOf = (client: Client | null): string => (client && accounts.get(client)) ?? ownAccount
  const unreleased = new FairQuota(maxUnreleased)
  const congestion = new Congestion<Client>({
    mark: options.maxQueuedBytes,
    most: Math.max(mostQueued * options.maxQueuedBytes, mostQueuedPackets * options.maxPacketSize),
    accountOf,
  })
  const forwarding = new DeliveryPolicy({
    subscriptions,
    congestion,
    maxQueuedBytes: options.maxQueuedBytes,
    catchUps: store.catchUps,
    turnEnd,
    endOf: client => connections.endOf(client),
    identifiersOf: client => store.packetIdsOf(client),
    noteSent: (client, packet) => {
      store.outgoingUpdate(client, packet).catch(onError)
    },
    mayReceive: (client, topic) => admissions.mayReceive(client, topic),
    // It would read what waits for it at that pace, too.
    cutOff: client => connections.cutOff(client, new GatewayError('client-too-slow')),
    logFieldsOf: client => admissions.logFieldsOf(client),
    log,
  })
  const gates = {
    accountOf,
    screen: (client: Client, topic: string) => admissions.screen(client, topic),
    ignored: (client: Client, topic: string) => admissions.ignored(client, topic),
    onProgress: (client: Client, bytes: number) => connections.publishing(client, bytes),
    holdIdentifier: (client: Client, id: number) => {
      const ids = client._inboundInflight
      if (ids instanceof UnreleasedIds && !ids.fits(id)) return new GatewayError('identifiers-too-many')
      ids.add(id)
      return undefined
    },
    patience: {
      isAnyCongested: () => congestion.size > 0,
      isStalled: (subscriber: Client) => congestion.isStalled(subscriber),
      isWaitedFor: (subscriber: Client, publisher: Client) => congestion.isWaitedFor(subscriber, publisher),
      // It may be sending, and is not read.
      onWait: (publisher: Client) => void publisher._keepaliveTimer?.refresh(),
    },
  }
  const aedes = new DurableAedes(store, gates, subscriptions, turnEnd, {
    ...limits,
    connectTimeout: options.connectTimeout,
    ...handlers({ subscriptions, store, admissions, takeovers, onError, onRefused: hooks.filters?.refused }),
    id: brokerId(disk),
  })
  const announcements = `$SYS/${aedes.id}/`
  aedes.authorizeForward = (client, packet) =>
    // Aedes' own announcements, between the nodes of a cluster: they name clients and what they subscribe to.
    packet.topic.startsWith(announcements) ? null : forwarding.authorize(client, packet)
  aedes.on('connackSent', (_connack, client) => {
    forwarding.connected(client)
    admissions.connected(client)
  })
  aedes.on('clientReady', client => connections.ready(client))
  aedes.on('unsubscribe', (filters, client) => store.grants.release(client, filters))
  aedes.on('unsubscribe', (filters, client) => subscriptions.unsubscribe(client, filters))
  aedes.on('error', onError)
  const onClientError = (client: Client, error: Error): void => {
    // Told for each message that waited when the connection was closed.
    if (error.message === 'connection closed') return
    if (error instanceof GatewayError) connections.explain(client, error)
    log.debug({ err: error, clientId: client.id }, 'the broker ended a connection')
  }
  aedes.on('clientError', onClientError)
  aedes.on('connectionError', onClientError)
  aedes.on('client', client => store.sessions.connected(client))
  aedes.on('client', client => takeovers.connected(client))
  aedes.on('clientDisconnect', client => store.sessions.disconnected(client))
  aedes.on('clientDisconnect', client => takeovers.disconnected(client))
  // A will is published when its connection is gone.
  aedes.on('client', client => {
    const peer = connections.peerOf(client)
    const { user } = admissions.identityOf(client)
    if (peer && peer !== internalPeer) accounts.set(client, nameAccount(user, peer.address))
    const ids = new UnreleasedIds(unreleased, accountOf(client))
    client._inboundInflight = ids
    client.conn.once('close', () => ids.clear())
    if (user !== undefined) connections.named(client)
  })
  const retained = new RetainedDelivery({
    retained: store.retained,
    slicer,
    endOf: client => connections.endOf(client),
    accountOf,
    cutOff: client => connections.cutOff(client, new GatewayError('client-too-slow')),
    onError,
  })
  aedes.on('subscribe', (subscriptions, client) => {
    const granted = subscriptions.filter(({ qos }) => qos <= 2)
    retained.subscribed(
      client,
      granted.map(({ topic }) => topic),
    )
  })
  aedes.on('unsubscribe', (filters, client) => retained.unsubscribed(client, filters))
  hooks.watchRetained?.(() => ({ ...store.retained.figures(), scans: retained.scans }))
  const own = new WeakSet<Client>()
  let ownConnected = 0
  aedes.on('client', client => {
    if (connections.peerOf(client) !== internalPeer) return
    own.add(client)
    ownConnected++
  })
  aedes.on('clientDisconnect', client => {
    if (own.has(client)) ownConnected--
  })
  if (hooks.subscriptions)
    watchSubscriptions(aedes, hooks.subscriptions, { connections, admissions, grants: store.grants })
  await aedes.listen()
  await store.expire()
  const expiry = setInterval(() => store.expire().catch(onError), expiryInterval).unref()

  let ownPublishes = 0
  const figures = (): BrokerFigures => ({
    ...addPublishes(connections.figures(), ownPublishes),
    connected: aedes.connectedClients - ownConnected,
    publishesSent: forwarding.sent,
    publishesDropped: forwarding.dropped + store.sessions.dropped,
  })
  const stopSysTopics = startSysTopics(version, figures, (topic, payload) =>
    aedes.publish({ cmd: 'publish', topic, payload: Buffer.from(payload), qos: 0, retain: true, dup: false }, () => {}),
  )

  const shut = async (): Promise<void> => {
    stopSysTopics()
    clearInterval(expiry)
    await new Promise<void>(resolve => aedes.close(() => resolve()))
    await connections.close()
    await disk?.close()
  }
  let shutting: Promise<void> | undefined
  return {
    name: 'embedded',
    figures,
    attach: sink => {
      aedes.setSink({
        get isFull() {
          return sink.isFull
        },
        append: (message, isAwaited) =>
          message.topic.startsWith(announcements) ? undefined : sink.append(message, isAwaited),
      })
      return { resume: () => aedes.resume(), idle: () => aedes.idle() }
    },
    publish: (message, account, append) => {
      ownPublishes++
      return aedes.publishOwn({ packet: { cmd: 'publish', dup: false, ...message }, account, append })
    },
    retained: filters => readRetained(store.retained, filters, slicer),
    async open(peer) {
      if (aedes.closed) throw new GatewayError('shutting-down')
      const { client, broker } = connections.open(peer)
      const handled = aedes.handle(broker)
      readStrictly(handled._parser, (id, acknowledgement) => store.acknowledge(handled, id, acknowledgement))
      return client
    },
    close() {
      shutting ??= shut()
      return shutting
    },
  }
}

/** Counts what was published over HTTP beside what came over connections. */
function addPublishes<T extends { publishesReceived: number }>(traffic: T, count: number): T {
  return { ...traffic, publishesReceived: traffic.publishesReceived + count }
}

async function* readRetained(
  retained: Retained,
  filters: readonly string[],
  slicer: TimeSlicer,
): AsyncGenerator<readonly AcceptedMessage[], void, void> {
  const scan = retained.scan(filters)
  while (!scan.isDone) {
    await slicer.next('retained messages')
    const packets = await retained.read(scan.next(() => slicer.isOver).topics)
    yield packets.map(({ topic, payload, qos }) => ({ topic, payload: asBuffer(payload), qos, retain: true }))
  }
}

function asBuffer(payload: string | Buffer): Buffer {
  return typeof payload === 'string' ? Buffer.from(payload) : payload
}

function watchSubscriptions(
  aedes: DurableAedes,
  watcher: SubscriptionWatcher,
  {
    connections,
    admissions,
    grants,
  }: { connections: Connections; admissions: ConnectAuthorizer; grants: SubscriptionLimits },
): void {
  const subscribers = new Subscribers({
    watcher,
    describe: client => {
      const peer = connections.peerOf(client)
      if (!peer || peer === internalPeer) return undefined
      return { clientId: client.id, user: admissions.identityOf(client).user, address: peer.address }
    },
  })
  // What a session has got back is not among what Aedes tells of subscriptions.
  aedes.on('connackSent', (_connack, client) => subscribers.subscribed(client, [...grants.of(client)]))
  aedes.on('subscribe', (subscriptions, client) => {
    const asked = subscriptions.map(({ topic }) => topic)
    const granted = asked.filter(topic => grants.of(client).has(topic))
    subscribers.subscribed(client, granted)
  })
  aedes.on('unsubscribe', (filters, client) => subscribers.unsubscribed(client, filters))
  aedes.on('clientDisconnect', client => subscribers.left(client))
}

async function inMemory(): Promise<StorageBackend> {
  const { default: MemoryPersistence } = await import('aedes-persistence/asyncPersistence.js')
  return memoryBackend(new MemoryPersistence())
}

/** Queues are ordered by it, so that it must sort by start time; messages are told apart by it, so that it is unique. */
function brokerId(disk: LevelBackend | undefined): string {
  return `mqway-${String(disk?.run ?? 1).padStart(10, '0')}`
}

interface HandlerParts {
  readonly subscriptions: LiveSubscriptions
  readonly store: Store
  readonly admissions: ConnectAuthorizer
  readonly takeovers: Takeovers
  readonly onError: (error: unknown) => void
  readonly onRefused: ((bound: SubscriptionBound) => void) | undefined
}

/** Aedes' other questions. */
function handlers({
  subscriptions,
  store,
  admissions,
  takeovers,
  onError,
  onRefused = () => {},
}: HandlerParts): AedesOptions {
  const nameless = new WeakSet<Client>()
  return {
    preConnect(client, packet, done) {
      if (packet.clientId === '' && (packet.clean === false || packet.protocolVersion === 3)) nameless.add(client)
      if (packet.protocolVersion === 3) clearSessionPresent(client.conn)
      admissions.received(client, packet)
      client.conn.once('close', () => store.grants.left(client))
      done(null, true)
    },
    authenticate(client, _username, _password, done) {
      // [MQTT-3.1.3-8]: a session that nobody could ever come back to. MQTT 3.1 has no empty client id. Return code 2: identifier rejected.
      if (nameless.has(client)) done(Object.assign(new Error('a session needs a client id'), { returnCode: 2 }), false)
      else {
        admissions.judge(client, error => {
          if (error) return done(error, false)
          takeovers.accepted(client)
          done(null, true)
        })
      }
    },
    authorizeSubscribe(client, subscription, done) {
      const { topic } = subscription
      const isRestored = admissions.isRestoring(client)
      const refusal = store.grants.refusal(client, topic, isRestored)
      if (refusal === undefined) {
        done(null, subscriptions.subscribe(client, subscription))
        return
      }
      if (refusal !== 'rules' && refusal !== 'invalid' && refusal !== 'shared') onRefused(refusal)
      if (topic !== noSubscription) admissions.notGranted(client, topic, refusal)
      // It was granted under other rules.
      if (isRestored) store.removeSubscriptions(client, [topic]).catch(onError)
      // Null is 0x80 in SUBACK [MQTT-3.9.3-2].
      done(null, null)
    },
  }
}
