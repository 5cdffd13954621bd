import type { AedesOptions, AedesPublishPacket, Client, ConnectPacket } from 'aedes'
import type { ClientSession } from '../../base/connected-clients.js'
import { ErrorLog } from '../../base/error-log.js'
import { GatewayError } from '../../base/errors.js'
import { FairQuota } from '../../base/fair-quota.js'
import type { Logger } from '../../base/log.js'
import type { DeniedAction, Metrics, RetainedFigures } from '../../base/metrics.js'
import type { SliceMonitor } from '../../base/slice-monitor.js'
import { TimeSlicer } from '../../base/time-slicer.js'
import { version } from '../../base/version.js'
import type { Properties } from '../../mqtt/properties.js'
import { firstFailure, reasonCodes } from '../../mqtt/reason-codes.js'
import { encodeConnack, encodeDisconnectWithin } from '../../mqtt/server-packets.js'
import { type Broker, type BrokerStream, internalPeer, type Peer } from '../broker.js'
import { AcknowledgementTracker, type AcknowledgementWatch } from './acknowledgement-tracker.js'
import type { Authorizer } from './authorizer.js'
import { Congestion } from './congestion.js'
import { type AedesConnack, replaceConnack } from './connack.js'
import { ConnectAuthorizer } from './connect-authorizer.js'
import { type ConnectionLimits, Connections } from './connections.js'
import { Delivery, isReady, type Receiver } from './delivery.js'
import { DurableAedes } from './durable-aedes.js'
import { type LevelBackend, openLevel } from './level-backend.js'
import { LiveSubscriptions } from './live-subscriptions.js'
import type { AcceptedMessage, MessageSink } from './message-sink.js'
import { messageOf, packetOf } from './packet.js'
import { ReceivedPackets, receiveMaximum } from './received-packets.js'
import { RetainedDelivery } from './retained-delivery.js'
import { withoutGroup } from './shared-filter.js'
import { SharedSubscriptions } from './shared-subscriptions.js'
import { memoryBackend, type StorageBackend } from './storage-backend.js'
import { Store, type StoreLimits } from './store.js'
import { readStrictly } from './strict-packets.js'
import { SubscribeHandler } from './subscribe-handler.js'
import { Subscribers, type SubscriptionWatcher } from './subscribers.js'
import { type BrokerFigures, startSysTopics } from './sys-topics.js'
import { Takeovers } from './takeovers.js'
import type { CreateRateLimit } from './throttle.js'
import { TickScheduler } from './tick-scheduler.js'
import { maxTopicAliases, TopicAliases } from './topic-aliases.js'
import { maxUnreleased } from './unreleased-ids.js'

export interface EmbeddedOptions extends ConnectionLimits, StoreLimits {
  /** Directory of sessions and retained messages, or `none` for memory only. */
  readonly data: string
  /** Longest keep alive of a client of MQTT 5, in milliseconds. Default: off. */
  readonly maxKeepAlive?: number | 'off'
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
    /** The client id that Aedes has made for a client without one. */
    readonly _assignedClientId: string | undefined
    /** Keep alive in seconds that the client is told, and must keep (MQTT 5 §3.2.2.3.14). */
    _serverKeepAlive: number | undefined
    /** Whether the client is told its session expiry interval. */
    readonly _sessionExpiryClamped: boolean
    readonly connackSent: boolean
    readonly subscriptions: object
    readonly duplicates: object
  }
}

/** The broker inside this process. */
export interface EmbeddedBroker extends Broker {
  /** Why sessions and retained messages cannot be written to disk; `undefined` while they can. */
  readonly storageFailure: string | undefined
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
   * @param watch of its acknowledgements
   * @returns resolves when the message is stored and may be acknowledged
   * @throws {Error} rejects if the message cannot be stored
   */
  publish(
    message: AcceptedMessage,
    account: string | undefined,
    append: MessageSink['append'],
    watch?: AcknowledgementWatch,
  ): Promise<void>
  /**
   * Ends a session: at once if its client is absent, else when the connection ends.
   *
   * @returns whether there is one
   */
  endSession(clientId: string): boolean
  /** Ends the connections that the access rules no longer admit, or that have a filter that they no longer grant: to be called when the rules have changed. */
  review(): Promise<void>
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
  // PINGREQ and DISCONNECT before CONNACK; the other packets wait in `ReceivedPackets`.
  queueLimit: 65_535,
  // Practically off: it would end a client that takes longer for one large retained message; `Congestion` finds clients that read nothing.
  // 0 would add a listener per waiting message, whose cost grows quadratically.
  drainTimeout: 2 ** 31 - 1,
} satisfies AedesOptions

/**
 * Starts the broker: Aedes, for MQTT 5, 3.1.1 and 3.1.
 *
 * @throws {StartError} when its data directory cannot be opened
 */
export async function createEmbedded(
  options: EmbeddedOptions,
  log: Logger,
  hooks: EmbeddedHooks = {},
): Promise<EmbeddedBroker> {
  const disk = options.data === 'none' ? undefined : await openLevel(options.data, log)
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
  readonly #shared = new SharedSubscriptions<Receiver>(isReady)
  readonly #subscriptions: LiveSubscriptions<Receiver>
  readonly #congestion: Congestion<Client>
  readonly #delivery: Delivery
  readonly #receivedPackets: ReceivedPackets
  readonly #subscribeHandler: SubscribeHandler
  /** Connected clients. */
  readonly #receivers = new WeakMap<Client, Receiver>()
  readonly #retainedDelivery: RetainedDelivery
  readonly #subscribers: Subscribers | undefined
  readonly #acknowledgements = new AcknowledgementTracker(client => ({
    clientId: client.id,
    user: this.#authorizer.identityOf(client).user,
  }))
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
    this.#subscriptions = new LiveSubscriptions(this.#shared, this.#slicer)
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
      send: (client, packet, done) => {
        const receiver = this.#receivers.get(client)
        return !receiver || this.#delivery.retained(receiver, packet, done)
      },
      onError: this.#onError,
    })
    this.#subscribers = hooks.subscriptions && this.#createSubscribers(hooks.subscriptions)
    this.#subscribeHandler = this.#createSubscribeHandler()
    this.#receivedPackets = this.#createReceivedPackets()
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
      shared: this.#shared,
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
    const tellWhy = (client: Client, reason: GatewayError): boolean => this.#tellWhy(client, reason)
    return new Connections({ ...this.#options, createRateLimit, onThrottled, slices, accountOf, tellWhy }, this.#tick)
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
      end: (client, reason) => {
        if (!this.#tellWhy(client, reason)) this.#connections.cutOff(client, reason)
      },
      disconnect: (client, reason) => this.#disconnect(client, reason),
      onDenied,
      log: this.#log,
    })
  }

  #createDelivery(): Delivery {
    return new Delivery({
      cutOff: this.#clientActions.cutOff,
      subscriptions: this.#subscriptions,
      congestion: this.#congestion,
      maxQueuedBytes: this.#options.maxQueuedBytes,
      queueReplay: this.#store.queueReplay,
      tick: this.#tick,
      store: (client, packet) => this.#store.outgoingUpdate(client, packet),
      onSent: (client, messageId, packet) => this.#acknowledgements.sent(client, messageId, packet),
      discard: (client, packet) => this.#store.outgoingClearMessageId(client, packet),
      mayReceive: (client, topic) => this.#authorizer.mayReceive(client, topic),
      logFieldsOf: client => this.#authorizer.logFieldsOf(client),
      log: this.#log,
      onError: this.#onError,
    })
  }

  #createSubscribeHandler(): SubscribeHandler {
    const limits = this.#store.subscriptionLimits
    return new SubscribeHandler({
      grant: (client, filter, isRestored) => {
        const refusal = limits.refusal(client, filter, isRestored)
        if (refusal !== undefined && refusal !== 'rules' && refusal !== 'invalid') this.#hooks.filters?.refused(refusal)
        return refusal
      },
      notGranted: (client, filter, refusal) => this.#authorizer.notGranted(client, filter, refusal),
      release: (client, filter) => limits.release(client, [filter]),
      subscriptions: this.#subscriptions,
      stored: {
        of: client => this.#store.subscriptionsOf(client),
        add: (client, subscriptions) => this.#store.addSubscriptions(client, subscriptions),
        remove: (client, filters) => this.#store.removeSubscriptions(client, filters),
      },
      receiverOf: client => this.#receivers.get(client),
      endOf: client => this.#connections.of(client)?.broker,
      slicer: this.#slicer,
      onSubscribed: (client, filters, retained) => {
        this.#retainedDelivery.subscribed(client, retained)
        this.#subscribers?.subscribed(client, filters.map(withoutGroup))
      },
      onUnsubscribed: (client, filters) => {
        this.#retainedDelivery.unsubscribed(client, filters)
        if (!this.#subscribers) return
        const left = new Set([...limits.of(client)].map(withoutGroup))
        this.#subscribers.unsubscribed(
          client,
          filters.map(withoutGroup).filter(filter => !left.has(filter)),
        )
      },
      onError: this.#onError,
    })
  }

  #createReceivedPackets(): ReceivedPackets {
    return new ReceivedPackets({
      publisher: () => this.#aedes,
      screen: (client, topic) => this.#authorizer.screen(client, topic),
      ignored: (client, topic) => this.#authorizer.ignored(client, topic),
      subscribe: (client, packet) => this.#subscribeHandler.subscribe(client, packet),
      unsubscribe: (client, packet) => this.#subscribeHandler.unsubscribe(client, packet),
      onAcknowledgement: (client, messageId, isSuccess) =>
        this.#acknowledgements.acknowledged(client, messageId, isSuccess),
      acknowledged: (client, messageId) => this.#acknowledged(client, messageId),
      received: (client, messageId) => this.#store.outgoingUpdate(client, pubrel(messageId)),
      release: (client, messageId) => this.#store.releaseIncoming(client, messageId),
      receiverOf: client => this.#receivers.get(client),
      endOf: client => this.#connections.of(client)?.broker,
      accountOf: this.#accountOf,
      unreleased: this.#unreleased,
      disconnect: (client, reason) => this.#disconnect(client, reason),
      onError: this.#onError,
    })
  }

  async #acknowledged(client: Client, messageId: number): Promise<void> {
    await this.#store.outgoingClearMessageId(client, { messageId })
    const receiver = this.#receivers.get(client)
    if (receiver) this.#delivery.acknowledged(receiver)
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
    const { sessionExpiry, maxSessions } = this.#options
    const congestion = this.#congestion
    const gates = {
      accountOf: this.#accountOf,
      mayPublishWill: (client: Client, topic: string) =>
        !isSystemTopic(topic) && this.#authorizer.screen(client, topic) === true,
      onProgress: (client: Client, bytes: number) => this.#connections.publishing(client, bytes),
      deliver: (...delivered: Parameters<Delivery['live']>) =>
        this.#mayDeliver(delivered[1].topic) ? this.#delivery.live(...delivered) : true,
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
      sessionExpiryIntervalLimit: sessionExpiry === 'off' ? 0 : Math.max(1, Math.ceil(sessionExpiry / 1000)),
      // Wills with a delay: each has a session.
      pendingSessionsLimit: maxSessions,
      connectTimeout: this.#options.connectTimeout,
      id: brokerId(this.#disk),
      preConnect: (client, packet, done) => {
        this.#received(client, packet)
        done(null, true)
      },
      authenticate: (client, _username, _password, done) =>
        this.#authenticate(client, error => done(error ?? null, error === undefined)),
      // Aedes asks only for the placeholder of a session (`Store`).
      authorizeSubscribe: (_client, _subscription, done) => done(null, null),
    })
  }

  /** Aedes' announcements name clients. */
  #mayDeliver(topic: string): boolean {
    return !topic.startsWith(this.#announcements)
  }

  #received(client: Client, packet: ConnectPacket): void {
    const isOld = packet.protocolVersion === 3
    const isWithoutId = packet.clientId === '' && packet.protocolVersion !== 5
    if (isWithoutId && (packet.clean === false || isOld)) this.#withoutClientId.add(client)
    replaceConnack(client.conn, connack => this.#connack(client, packet, connack))
    this.#authorizer.received(client, packet)
    client.conn.once('close', () => {
      this.#store.subscriptionLimits.left(client)
      void this.#subscriptions.removeAll(client)
    })
  }

  /** [MQTT-3.2.2-22] */
  #limitKeepAlive(client: Client): void {
    const { maxKeepAlive = 'off' } = this.#options
    if (maxKeepAlive === 'off' || client.version !== 5) return
    const { keepalive = 0 } = this.#authorizer.connectOf(client) ?? {}
    const max = Math.ceil(maxKeepAlive / 1000)
    if (keepalive === 0 || keepalive > max) client._serverKeepAlive = max
  }

  #authenticate(client: Client, done: (error?: Error & { returnCode: 2 | 3 | 4 | 5 }) => void): void {
    if (this.#withoutClientId.has(client)) {
      // [MQTT-3.1.3-8], and MQTT 3.1 has no empty client id. Return code 2: identifier rejected.
      done(Object.assign(new Error('a session needs a client id'), { returnCode: 2 as const }))
      return
    }
    this.#limitKeepAlive(client)
    this.#authorizer.judge(client, error => {
      if (!error) {
        this.#takeovers.accepted(client, this.#store.sessions.connectedClient(client.id))
        // [MQTT-3.1.2-8]
        if (this.#authorizer.connectOf(client)?.clean) this.#aedes.publishDelayedWill(client.id)
      }
      done(error)
    })
  }

  #connack(
    client: Client,
    { protocolVersion, properties }: ConnectPacket,
    { isSessionPresent, code }: AedesConnack,
  ): Buffer {
    // MQTT 3.1 reserves the flag.
    if (protocolVersion !== 5) return encodeConnack(isSessionPresent && protocolVersion !== 3, code)
    if (code === 0) return encodeConnack(isSessionPresent, code, this.#properties(client))
    const reason = this.#connections.of(client)?.client.closeReason
    const refusal = encodeConnack(false, reason?.mqttReason ?? code, reason ? { reasonString: reason.text } : {})
    // [MQTT-3.2.2-19]
    const isTooLarge = refusal.length > (properties?.maximumPacketSize ?? refusal.length)
    return isTooLarge ? encodeConnack(false, reason?.mqttReason ?? code, {}) : refusal
  }

  /** The properties of CONNACK: the limits that the broker grants a client of MQTT 5 (§3.2.2.3). */
  #properties(client: Client): Properties {
    const { _assignedClientId: id, _serverKeepAlive: keepAlive, sessionExpiryInterval } = client
    return {
      receiveMaximum,
      topicAliasMaximum: maxTopicAliases,
      maximumPacketSize: this.#options.maxPacketSize,
      ...(id !== undefined && { assignedClientIdentifier: id }),
      ...(keepAlive !== undefined && { serverKeepAlive: keepAlive }),
      ...(client._sessionExpiryClamped && { sessionExpiryInterval }),
    }
  }

  /** Closes a client's connection after the written bytes; tells a client of MQTT 5 why. */
  #disconnect(client: Client, reason: GatewayError): void {
    if (client.closed || this.#tellWhy(client, reason)) return
    this.#connections.setCloseReason(client, reason)
    client.close()
  }

  /** @returns false for a client before MQTT 5, or without CONNACK, or that reads too slowly for a last packet */
  #tellWhy(client: Client, reason: GatewayError): boolean {
    const connection = this.#connections.of(client)
    if (!connection || client.version !== 5 || !client.connackSent || client.closed) return false
    if (reason.reason === 'client-too-slow' && connection.broker.waitingBytes > 0) return false
    this.#connections.setCloseReason(client, reason)
    connection.broker.respond(this.#disconnectPacket(client, reason))
    client.close()
    return true
  }

  /** [MQTT-3.14.2-3] */
  #disconnectPacket(client: Client, { mqttReason, text }: GatewayError): Buffer {
    return encodeDisconnectWithin(client.maximumPacketSize, disconnectReasons[mqttReason] ?? mqttReason, text)
  }

  /** Tells a client of MQTT 5 why its packet is malformed, before Aedes closes its connection. */
  #malformed(client: Client, reason: GatewayError, isConnect: boolean): void {
    const end = this.#connections.of(client)?.broker
    if (client.connackSent && client.version === 5) end?.respond(this.#disconnectPacket(client, reason))
    else if (isConnect && client._parser.settings.protocolVersion === 5) {
      // Its maximum packet size is not known [MQTT-3.2.2-19].
      end?.respond(encodeConnack(false, Math.max(reason.mqttReason, firstFailure), {}))
    }
  }

  #watchAedes(): void {
    const aedes = this.#aedes
    aedes.on('client', client => this.#onConnected(client))
    aedes.on('connackSent', (_connack, client) => this.#onConnackSent(client))
    aedes.on('clientReady', client => this.#connections.ready(client))
    aedes.on('keepaliveTimeout', client => this.#onKeepAliveTimeout(client))
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
    const receiver = this.#createReceiver(client)
    this.#receivers.set(client, receiver)
    if (connection) connection.unsentBytes = () => receiver.waitingBytes
    if (!client.clean) this.#subscribeHandler.restore(receiver)
  }

  #createReceiver(client: Client): Receiver {
    const isVersion5 = client.version === 5
    const { topicAliasMaximum = 0 } = (isVersion5 && this.#authorizer.connectOf(client)?.properties) || {}
    return {
      client,
      isVersion5,
      end: this.#connections.of(client)?.broker,
      ids: this.#store.packetIdsOf(client),
      receiveMaximum: client.receiveMaximum,
      maximumPacketSize: client.maximumPacketSize ?? Number.POSITIVE_INFINITY,
      aliases: topicAliasMaximum > 0 ? new TopicAliases(topicAliasMaximum) : undefined,
      isConnected: false,
      paced: 0,
      waiting: [],
      waitingBytes: 0,
      onDrain: [],
      onWindow: [],
      isFull: false,
      hasWarned: false,
    }
  }

  #onConnackSent(client: Client): void {
    this.#authorizer.connected(client)
    const receiver = this.#receivers.get(client)
    if (receiver) {
      receiver.isConnected = true
      if (!client.clean) this.#delivery.replay(receiver)
    }
    this.#receivedPackets.connected(client)
    // Aedes emits no `subscribe` for the filters of a restored session.
    this.#subscribers?.subscribed(client, [...this.#store.subscriptionLimits.of(client)].map(withoutGroup))
  }

  #onKeepAliveTimeout(client: Client): void {
    const reason = new GatewayError('keep-alive-timeout')
    this.#connections.setCloseReason(client, reason)
    if (client.version === 5) this.#connections.of(client)?.broker.respond(this.#disconnectPacket(client, reason))
  }

  #onDisconnected(client: Client): void {
    // DISCONNECT may have changed it.
    if (client.version === 5) this.#store.sessions.setExpiry(client.id, client.sessionExpiryInterval)
    this.#store.sessions.disconnected(client)
    if (client.clean) this.#store.cleanIncoming(client).catch(this.#onError)
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
    // Keys come from clients: GHSA-52qw-whmv-87c5.
    Object.assign(handled, { subscriptions: Object.create(null), duplicates: Object.create(null) })
    readStrictly(handled._parser, {
      acknowledge: (id, acknowledgement) => this.#store.acknowledge(handled, id, acknowledgement),
      onMalformed: (error, isConnect) => this.#malformed(handled, error, isConnect),
    })
    this.#receivedPackets.attach(handled)
    // A client that does not read would not see the reason.
    client.endFor = reason => broker.waitingBytes === 0 && this.#tellWhy(handled, reason)
    client.clientSession = () => this.#sessionOf(handled)
    return client
  }

  #sessionOf(client: Client): ClientSession | undefined {
    if (this.#store.sessions.connectedClient(client.id) !== client) return undefined
    const { user } = this.#authorizer.identityOf(client)
    const filters = this.#store.subscriptionLimits.of(client)
    return { clientId: client.id, user, filters, ...this.#store.sessions.queueOf(client.id) }
  }

  async review(): Promise<void> {
    await this.#slicer.next('clients')
    // A map may change while it is iterated.
    for (const client of this.#connections.clients()) {
      if (this.#slicer.isOver) await this.#slicer.next('clients')
      const filters = [...this.#store.subscriptionLimits.of(client)].map(withoutGroup)
      await this.#authorizer.review(client, filters, this.#slicer)
    }
  }

  endSession(clientId: string): boolean {
    const { sessions } = this.#store
    const client = sessions.connectedClient(clientId)
    // DISCONNECT keeps it, and the session ends when the connection is closed.
    if (client?.version === 5) Object.assign(client, { sessionExpiryInterval: 0 })
    return sessions.endWhenAbsent(clientId)
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

  publish(
    message: AcceptedMessage,
    account: string | undefined,
    append: MessageSink['append'],
    watch?: AcknowledgementWatch,
  ): Promise<void> {
    this.#internalPublishes++
    return this.#aedes.publishInternal({
      ...{ packet: packetOf(message), account, append },
      onEmit: watch && (packet => this.#acknowledgements.track(packet, watch)),
    })
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

  get storageFailure(): string | undefined {
    return this.#disk?.failure
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stopSysTopics()
    this.#acknowledgements.close()
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

/** Reason codes in DISCONNECT (§3.14.2.1) in place of those that only CONNACK may have. */
const disconnectReasons: Partial<Record<number, number>> = {
  [reasonCodes.unsupportedVersion]: reasonCodes.unspecified,
  [reasonCodes.clientIdInvalid]: reasonCodes.sessionTakenOver,
  [reasonCodes.badUserNameOrPassword]: reasonCodes.notAuthorized,
  [reasonCodes.serverUnavailable]: reasonCodes.serverBusy,
  [reasonCodes.banned]: reasonCodes.notAuthorized,
}

function pubrel(messageId: number): AedesPublishPacket {
  return { cmd: 'pubrel', messageId } as unknown as AedesPublishPacket
}

/** Whether a topic is reserved for the broker's own figures. */
function isSystemTopic(topic: string): boolean {
  return topic.startsWith('$SYS/') || topic === '$SYS'
}
