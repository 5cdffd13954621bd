import type { AedesOptions, Client, ConnectPacket, Subscription } from 'aedes'
import { ErrorLog } from '../../base/error-log.js'
import { GatewayError } from '../../base/errors.js'
import { FairQuota } from '../../base/fair-quota.js'
import type { Logger } from '../../base/log.js'
import type { DeniedAction, Metrics, RetainedFigures } from '../../base/metrics.js'
import type { SliceMonitor } from '../../base/slice-monitor.js'
import { TimeSlicer } from '../../base/time-slicer.js'
import { version } from '../../base/version.js'
import { type Broker, type BrokerStream, internalPeer, type Peer } from '../broker.js'
import type { Authorizer } from './authorizer.js'
import { Congestion } from './congestion.js'
import { ConnectAuthorizer } from './connect-authorizer.js'
import { type ConnectionLimits, Connections } from './connections.js'
import { DeliveryPolicy } from './delivery-policy.js'
import { DurableAedes } from './durable-aedes.js'
import { type LevelBackend, openLevel } from './level-backend.js'
import { LiveSubscriptions } from './live-subscriptions.js'
import type { AcceptedMessage, MessageSink } from './message-sink.js'
import { messageOf, packetOf } from './packet.js'
import { RetainedDelivery } from './retained-delivery.js'
import { memoryBackend, type StorageBackend } from './storage-backend.js'
import { Store, type StoreLimits } from './store.js'
import { clearSessionPresent, type PacketParser, readStrictly } from './strict-packets.js'
import { Subscribers, type SubscriptionWatcher } from './subscribers.js'
import { noSubscription } from './subscription-limits.js'
import { type BrokerFigures, startSysTopics } from './sys-topics.js'
import { Takeovers } from './takeovers.js'
import type { CreateRateLimit } from './throttle.js'
import { TickScheduler } from './tick-scheduler.js'
import { maxUnreleased, UnreleasedIds } from './unreleased-ids.js'

export interface EmbeddedOptions extends ConnectionLimits, StoreLimits {
  /** Directory of sessions and retained messages, or `none` for memory only. */
  readonly data: string
  /** Time limit for CONNECT, in milliseconds. The tunnel's own limit is shorter and tells the client why. */
  readonly connectTimeout: number
}

/** Optional collaborators of the embedded broker. */
export interface EmbeddedHooks {
  /** Authenticates clients and authorizes topics. Default: every client may do everything. */
  readonly authorizer?: Authorizer | undefined
  /** Measures the work in the event loop. */
  readonly slices?: SliceMonitor | undefined
  /** Client ids reserved for the gateway itself. */
  readonly reservedClientIds?: ReadonlySet<string> | undefined
  /** Publish rate limit of each connection. Default: none. */
  readonly createRateLimit?: CreateRateLimit | undefined
  /** Called for each pause of a connection by its rate limit. */
  readonly onThrottled?: (() => void) | undefined
  /** Called for each denied message and topic filter. */
  readonly onDenied?: ((action: DeniedAction) => void) | undefined
  /** Shares the event loop among the gateway's long tasks. */
  readonly slicer?: TimeSlicer | undefined
  /** Quota key of a client. Default: the user, or else the address. */
  readonly accountOf?: ((user: string | undefined, address: string) => string) | undefined
  /** Receives the function that reads the figures of retained messages. */
  readonly watchRetained?: ((read: () => RetainedFigures) => void) | undefined
  /** Observes the clients' subscriptions, but not the gateway's own. */
  readonly subscriptions?: SubscriptionWatcher | undefined
  readonly sessions?: Metrics['sessions'] | undefined
  readonly filters?: Metrics['filters'] | undefined
  /** Network of an address; anonymous clients of one network share their quotas. Default: the address. */
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
  /** Current counters. */
  figures(): BrokerFigures
  /**
   * Appends each message to a journal, once, when it leaves for its subscribers. One sink at a time.
   *
   * @returns `resume`: to be called when the sink is no longer full; `idle` resolves when no accepted message is still to be appended
   */
  attach(sink: MessageSink): { readonly resume: () => void; readonly idle: () => Promise<void> }
  /**
   * Publishes a message of the gateway, such as one published over HTTP.
   *
   * @param account quota key of the publisher; `undefined` for the gateway itself
   * @param append appends the message instead of the sink's `append`, if a sink is attached
   * @returns resolves when the message is stored and may be acknowledged
   * @throws {Error} rejects if the message cannot be stored
   */
  publish(message: AcceptedMessage, account: string | undefined, append: MessageSink['append']): Promise<void>
  /** The retained messages that match one of `filters`, each once, in any order, in batches. */
  retained(filters: readonly string[]): AsyncGenerator<readonly AcceptedMessage[], void, void>
}

const internalAccount = 'mqway'

/** Bounds of the bytes buffered for a client while publishers wait for it: in `maxQueuedBytes`, and in packets of the largest size. */
const maxQueuedFactor = 16
const maxQueuedPackets = 2

const aedesOptions = {
  // Paho's MQTT 3.1 fallback sends client ids of any length, which other brokers accept.
  maxClientsIdLength: 65_535,
  // Packets that arrive in the same read as CONNECT; bytes bound them already (`connections.ts`). The default of 42 would end the connection
  // of a returning client that repeats its in-flight messages before CONNACK, as it may.
  queueLimit: 65_535,
  // Packet identifiers of QoS 2 that wait for PUBREL are bounded earlier (`UnreleasedIds`).
  maxInflightInbound: 0,
  // Practically off: it would end a client that takes longer for one large retained message; `Congestion` finds clients that read nothing.
  // 0 would add a listener per waiting message, whose cost grows quadratically.
  drainTimeout: 2 ** 31 - 1,
} satisfies AedesOptions

/**
 * Starts the broker: Aedes, for MQTT 3.1 and 3.1.1. It answers MQTT 5 with "unacceptable protocol version".
 *
 * @throws {StartError} when its data directory cannot be opened
 */
export async function createEmbedded(
  options: EmbeddedOptions,
  log: Logger,
  hooks: EmbeddedHooks = {},
): Promise<EmbeddedBroker> {
  const disk = options.data === 'none' ? undefined : await openLevel(options.data)
  const broker = new Embedded(options, log, hooks, disk ?? memoryBackend(), disk)
  await broker.start()
  return broker
}

/** Aedes with its storage, limits and hooks: constructs the parts, and forwards Aedes' events to them. */
class Embedded implements EmbeddedBroker {
  readonly name = 'embedded'
  readonly #options: EmbeddedOptions
  readonly #log: Logger
  readonly #hooks: EmbeddedHooks
  readonly #disk: LevelBackend | undefined
  readonly #errors: ErrorLog
  readonly #slicer: TimeSlicer
  readonly #tick = new TickScheduler()
  readonly #store: Store
  readonly #connections: Connections
  readonly #authorizer: ConnectAuthorizer
  readonly #takeovers: Takeovers
  readonly #subscriptions: LiveSubscriptions
  readonly #congestion: Congestion<Client>
  readonly #delivery: DeliveryPolicy
  readonly #retainedDelivery: RetainedDelivery
  readonly #subscribers: Subscribers | undefined
  readonly #aedes: DurableAedes
  /** Topic prefix of Aedes' announcements to other nodes of a cluster: they name clients and their subscriptions. */
  readonly #announcements: string
  /** Quota keys of connected clients; a will still has its client's. */
  readonly #accounts = new WeakMap<Client, string>()
  readonly #unreleased = new FairQuota(maxUnreleased)
  readonly #withoutClientId = new WeakSet<Client>()
  readonly #internalClients = new Set<Client>()
  #internalPublishes = 0
  #stopSysTopics: () => void = () => {}
  #closing: Promise<void> | undefined

  constructor(
    options: EmbeddedOptions,
    log: Logger,
    hooks: EmbeddedHooks,
    storage: StorageBackend,
    disk: LevelBackend | undefined,
  ) {
    this.#options = options
    this.#log = log
    this.#hooks = hooks
    this.#disk = disk
    this.#errors = new ErrorLog(log, 'the broker failed to store or load data')
    this.#slicer = hooks.slicer ?? new TimeSlicer()
    this.#store = this.#createStore(storage)
    this.#connections = this.#createConnections()
    this.#authorizer = this.#createAuthorizer()
    this.#takeovers = new Takeovers({ ...this.#clientActions, log })
    this.#subscriptions = new LiveSubscriptions(this.#slicer)
    this.#congestion = new Congestion<Client>({
      mark: options.maxQueuedBytes,
      max: Math.max(maxQueuedFactor * options.maxQueuedBytes, maxQueuedPackets * options.maxPacketSize),
      accountOf: this.#accountOf,
    })
    this.#delivery = this.#createDelivery()
    this.#retainedDelivery = new RetainedDelivery({
      ...this.#clientActions,
      retained: this.#store.retained,
      slicer: this.#slicer,
      accountOf: this.#accountOf,
      onError: this.#onError,
    })
    this.#subscribers = hooks.subscriptions && this.#createSubscribers(hooks.subscriptions)
    this.#aedes = this.#createAedes()
    this.#announcements = `$SYS/${this.#aedes.id}/`
    this.#watchAedes()
    hooks.sessions?.watch(() => this.#store.sessions.figures)
    hooks.filters?.watch(() => this.#store.subscriptionLimits.figures)
    hooks.watchRetained?.(() => ({ ...this.#store.retained.figures(), scans: this.#retainedDelivery.scans }))
  }

  readonly #onError = (error: unknown): void => this.#errors.write(error)

  readonly #accountOf = (client: Client | null): string => (client && this.#accounts.get(client)) ?? internalAccount

  /** Functions about a client's connection, for the parts. */
  readonly #clientActions = {
    peerOf: (client: Client) => this.#connections.of(client)?.peer,
    brokerEndOf: (client: Client) => this.#connections.of(client)?.broker,
    setCloseReason: (client: Client, reason: GatewayError) => this.#connections.setCloseReason(client, reason),
    // It would read the messages that wait for it as slowly.
    cutOff: (client: Client) => this.#connections.cutOff(client, new GatewayError('client-too-slow')),
  }

  #createStore(storage: StorageBackend): Store {
    return new Store({
      storage,
      limits: this.#options,
      maySubscribe: (client, filter) => this.#authorizer.maySubscribe(client, filter),
      holderOf: client => this.#authorizer.quotaKeyOf(client),
      slicer: this.#slicer,
      onEnded: this.#hooks.sessions?.ended,
      onDropped: this.#hooks.sessions?.dropped,
      log: this.#log,
      onError: this.#onError,
    })
  }

  #createConnections(): Connections {
    const { createRateLimit, onThrottled, slices } = this.#hooks
    const accountOf = ({ address }: Peer): string => this.#nameAccount(undefined, address)
    return new Connections({ ...this.#options, createRateLimit, onThrottled, slices, accountOf }, this.#tick)
  }

  #nameAccount(user: string | undefined, address: string): string {
    return this.#hooks.accountOf?.(user, address) ?? user ?? address
  }

  #createAuthorizer(): ConnectAuthorizer {
    const { authorizer, reservedClientIds, networkOf = address => address, onDenied = () => {} } = this.#hooks
    return new ConnectAuthorizer({
      ...this.#clientActions,
      authorizer,
      reservedClientIds,
      bounds: this.#options,
      clientIds: this.#store.clientIds,
      sessions: this.#store.sessions,
      networkOf,
      isGone: client => {
        const end = this.#connections.of(client)?.client
        return end === undefined || end.destroyed || end.writableEnded
      },
      end: (client, reason) => this.#connections.cutOff(client, reason),
      onDenied,
      log: this.#log,
    })
  }

  #createDelivery(): DeliveryPolicy {
    return new DeliveryPolicy({
      ...this.#clientActions,
      subscriptions: this.#subscriptions,
      congestion: this.#congestion,
      maxQueuedBytes: this.#options.maxQueuedBytes,
      queueReplay: this.#store.queueReplay,
      tick: this.#tick,
      packetIdsOf: client => this.#store.packetIdsOf(client),
      noteSent: (client, packet) => {
        this.#store.outgoingUpdate(client, packet).catch(this.#onError)
      },
      mayReceive: (client, topic) => this.#authorizer.mayReceive(client, topic),
      logFieldsOf: client => this.#authorizer.logFieldsOf(client),
      log: this.#log,
    })
  }

  #createSubscribers(watcher: SubscriptionWatcher): Subscribers {
    return new Subscribers({
      watcher,
      describe: client => {
        const peer = this.#connections.of(client)?.peer
        if (!peer || peer === internalPeer) return undefined
        return { clientId: client.id, user: this.#authorizer.identityOf(client).user, address: peer.address }
      },
    })
  }

  #createAedes(): DurableAedes {
    const congestion = this.#congestion
    const gates = {
      accountOf: this.#accountOf,
      screen: (client: Client, topic: string) => this.#authorizer.screen(client, topic),
      ignored: (client: Client, topic: string) => this.#authorizer.ignored(client, topic),
      onProgress: (client: Client, bytes: number) => this.#connections.publishing(client, bytes),
      holdIdentifier: (client: Client, id: number) => {
        const ids = client._inboundInflight
        if (ids instanceof UnreleasedIds && !ids.fits(id)) return new GatewayError('identifiers-too-many')
        ids.add(id)
        return undefined
      },
      backpressure: {
        isAnyCongested: () => congestion.size > 0,
        isStalled: (subscriber: Client) => congestion.isStalled(subscriber),
        isWaitedFor: (subscriber: Client, publisher: Client) => congestion.isWaitedFor(subscriber, publisher),
        // The publisher may be sending while it is not read.
        onWait: (publisher: Client) => void publisher._keepaliveTimer?.refresh(),
      },
    }
    return new DurableAedes(this.#store, gates, this.#subscriptions, this.#tick, {
      ...aedesOptions,
      connectTimeout: this.#options.connectTimeout,
      id: brokerId(this.#disk),
      preConnect: (client, packet, done) => {
        this.#received(client, packet)
        done(null, true)
      },
      authenticate: (client, _username, _password, done) =>
        this.#authenticate(client, error => done(error ?? null, error === undefined)),
      // Null is 0x80 in SUBACK [MQTT-3.9.3-2].
      authorizeSubscribe: (client, subscription, done) => done(null, this.#authorizeSubscribe(client, subscription)),
      authorizeForward: (client, packet) =>
        packet.topic.startsWith(this.#announcements) ? null : this.#delivery.authorize(client, packet),
    })
  }

  #received(client: Client, packet: ConnectPacket): void {
    const isOld = packet.protocolVersion === 3
    if (packet.clientId === '' && (packet.clean === false || isOld)) this.#withoutClientId.add(client)
    if (isOld) clearSessionPresent(client.conn)
    this.#authorizer.received(client, packet)
    client.conn.once('close', () => this.#store.subscriptionLimits.left(client))
  }

  #authenticate(client: Client, done: (error?: Error & { returnCode: 2 | 3 | 4 | 5 }) => void): void {
    if (this.#withoutClientId.has(client)) {
      // [MQTT-3.1.3-8], and MQTT 3.1 has no empty client id. Return code 2: identifier rejected.
      done(Object.assign(new Error('a session needs a client id'), { returnCode: 2 as const }))
      return
    }
    this.#authorizer.judge(client, error => {
      if (!error) this.#takeovers.accepted(client, this.#store.sessions.connectedClient(client.id))
      done(error)
    })
  }

  #authorizeSubscribe(client: Client, subscription: Subscription): Subscription | null {
    const { topic } = subscription
    const isRestored = this.#authorizer.isRestoring(client)
    const refusal = this.#store.subscriptionLimits.refusal(client, topic, isRestored)
    if (refusal === undefined) return this.#subscriptions.subscribe(client, subscription)
    if (refusal !== 'rules' && refusal !== 'invalid' && refusal !== 'shared') this.#hooks.filters?.refused(refusal)
    if (topic !== noSubscription) this.#authorizer.notGranted(client, topic, refusal)
    // It was granted under other rules.
    if (isRestored) this.#store.removeSubscriptions(client, [topic]).catch(this.#onError)
    return null
  }

  #watchAedes(): void {
    const aedes = this.#aedes
    aedes.on('client', client => this.#onConnected(client))
    aedes.on('connackSent', (_connack, client) => this.#onConnackSent(client))
    aedes.on('clientReady', client => this.#connections.ready(client))
    aedes.on('subscribe', (subscriptions, client) => this.#onSubscribed(client, subscriptions))
    aedes.on('unsubscribe', (filters, client) => this.#onUnsubscribed(client, filters))
    aedes.on('clientDisconnect', client => this.#onDisconnected(client))
    aedes.on('error', this.#onError)
    aedes.on('clientError', this.#onClientError)
    aedes.on('connectionError', this.#onClientError)
  }

  #onConnected(client: Client): void {
    this.#store.sessions.connected(client)
    const connection = this.#connections.of(client)
    const { user } = this.#authorizer.identityOf(client)
    if (connection) connection.isNamed = user !== undefined
    if (connection?.peer === internalPeer) this.#internalClients.add(client)
    else if (connection) this.#accounts.set(client, this.#nameAccount(user, connection.peer.address))
    const ids = new UnreleasedIds(this.#unreleased, this.#accountOf(client))
    client._inboundInflight = ids
    client.conn.once('close', () => ids.clear())
  }

  #onConnackSent(client: Client): void {
    this.#delivery.connected(client)
    this.#authorizer.connected(client)
    // Aedes emits no `subscribe` for the filters of a restored session.
    this.#subscribers?.subscribed(client, [...this.#store.subscriptionLimits.of(client)])
  }

  #onSubscribed(client: Client, subscriptions: readonly Subscription[]): void {
    const granted = subscriptions.filter(({ qos }) => qos <= 2).map(({ topic }) => topic)
    this.#retainedDelivery.subscribed(client, granted)
    const current = this.#store.subscriptionLimits.of(client)
    this.#subscribers?.subscribed(
      client,
      granted.filter(topic => current.has(topic)),
    )
  }

  #onUnsubscribed(client: Client, filters: readonly string[]): void {
    this.#store.subscriptionLimits.release(client, filters)
    this.#subscriptions.unsubscribe(client, filters)
    this.#retainedDelivery.unsubscribed(client, filters)
    this.#subscribers?.unsubscribed(client, filters)
  }

  #onDisconnected(client: Client): void {
    this.#store.sessions.disconnected(client)
    this.#internalClients.delete(client)
    this.#subscribers?.left(client)
  }

  readonly #onClientError = (client: Client, error: Error): void => {
    // Emitted for each message that waited when the connection was closed.
    if (error.message === 'connection closed') return
    if (error instanceof GatewayError) this.#connections.setCloseReason(client, error)
    this.#log.debug({ err: error, clientId: client.id }, 'the broker ended a connection')
  }

  async start(): Promise<void> {
    await this.#aedes.listen()
    await this.#store.sessions.expire()
    this.#stopSysTopics = startSysTopics(
      version,
      () => this.figures(),
      (topic, text) => {
        const payload = Buffer.from(text)
        this.#aedes.publish({ cmd: 'publish', topic, payload, qos: 0, retain: true, dup: false }, () => {})
      },
    )
  }

  async open(peer: Peer): Promise<BrokerStream> {
    if (this.#aedes.closed) throw new GatewayError('shutting-down')
    const { client, broker } = this.#connections.open(peer)
    const handled = this.#aedes.handle(broker)
    readStrictly(handled._parser, (id, acknowledgement) => this.#store.acknowledge(handled, id, acknowledgement))
    return client
  }

  figures(): BrokerFigures {
    const traffic = this.#connections.figures()
    return {
      ...traffic,
      publishesReceived: traffic.publishesReceived + this.#internalPublishes,
      connected: this.#aedes.connectedClients - this.#internalClients.size,
      publishesSent: this.#delivery.sent,
      publishesDropped: this.#delivery.dropped + this.#store.sessions.dropped,
    }
  }

  attach(sink: MessageSink): { readonly resume: () => void; readonly idle: () => Promise<void> } {
    this.#aedes.setSink({
      get isFull() {
        return sink.isFull
      },
      append: (message, isAwaited) =>
        message.topic.startsWith(this.#announcements) ? undefined : sink.append(message, isAwaited),
    })
    return { resume: () => this.#aedes.resume(), idle: () => this.#aedes.idle() }
  }

  publish(message: AcceptedMessage, account: string | undefined, append: MessageSink['append']): Promise<void> {
    this.#internalPublishes++
    return this.#aedes.publishInternal({ packet: packetOf(message), account, append })
  }

  async *retained(filters: readonly string[]): AsyncGenerator<readonly AcceptedMessage[], void, void> {
    const { retained } = this.#store
    await this.#slicer.next('retained messages')
    for (const { topics } of retained.scan(filters, () => this.#slicer.isOver)) {
      const packets = await retained.read(topics)
      yield packets.map(packet => ({ ...messageOf(packet), retain: true }))
      await this.#slicer.next('retained messages')
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopSysTopics()
    await new Promise<void>(resolve => this.#aedes.close(() => resolve()))
    await this.#connections.close()
    await this.#store.close()
    await this.#disk?.close()
  }
}

/** Queues are ordered by it, so it sorts by start time; messages are identified by it, so it is unique. */
function brokerId(disk: LevelBackend | undefined): string {
  return `mqway-${String(disk?.run ?? 1).padStart(10, '0')}`
}
