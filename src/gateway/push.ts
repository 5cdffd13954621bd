import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { accountOf } from '../access/limits.js'
import { type OptionalRate, RateLimits, TokenBucket } from '../access/rate-limits.js'
import type { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { Logger } from '../base/log.js'
import { TimeSlicer } from '../base/time-slicer.js'
import { type Broker, internalPeer } from '../broker/broker.js'
import type { EmbeddedBroker } from '../broker/embedded/embedded.js'
import { registerCouchdb } from '../compat/couchdb.js'
import { OpenFeeds, Publishers } from '../compat/pere/context.js'
import { registerPere } from '../compat/pere.js'
import { Handles } from '../compat/rrr/handles.js'
import { registerRrr } from '../compat/rrr/push.js'
import { createRrrSocketRoute } from '../compat/rrr/socket.js'
import type { CompatConfig } from '../config/compat.js'
import type { NotifyConfig } from '../config/notify.js'
import type { PushConfig } from '../config/push.js'
import type { LimitsConfig } from '../config/schema.js'
import { BodyBudget } from '../http/body-budget.js'
import { FilterQuota } from '../hub/filter-quota.js'
import { type Hub, openHub } from '../hub/hub.js'
import { TopicActivity } from '../hub/topic-activity.js'
import type { Journal, JournalBounds } from '../journal/journal.js'
import type { RedisJournal } from '../journal/redis-journal.js'
import { reservedRules } from '../journal/reserved-topics.js'
import { ClientMessages } from '../presence/client-messages.js'
import type { Presence } from '../presence/presence.js'
import { type PresenceChange, PresenceMessages } from '../presence/presence-messages.js'
import { PresenceRegistry } from '../presence/presence-registry.js'
import type { SharedPresence } from '../presence/shared-presence.js'
import { openReceipts, type ReceiptsOptions } from '../receipts/open-receipts.js'
import type { Receipts } from '../receipts/receipts.js'
import { openEmbeddedSource } from '../sources/embedded.js'
import { openSession } from '../sources/mqtt/session.js'
import type { Source } from '../sources/publisher.js'
import { RememberedSubscriptions } from '../sources/remembered-subscriptions.js'
import { Requests } from '../sources/requests.js'
import { ResponseInbox } from '../sources/response-inbox.js'
import type { Coordinator } from '../storage/coordinator.js'
import type { SharedRedis } from '../storage/shared-redis.js'
import type { Store } from '../storage/store.js'
import { registerConnections } from '../transports/connections.js'
import { eventJson } from '../transports/event-json.js'
import { LiveConnections } from '../transports/live-connections.js'
import { registerOpenApi } from '../transports/openapi.js'
import { OpenPolls } from '../transports/poll/open-polls.js'
import { registerPoll } from '../transports/poll/poll.js'
import { registerPresence } from '../transports/presence.js'
import { registerPublish } from '../transports/publish.js'
import { registerReceipts } from '../transports/receipts.js'
import { registerRequest } from '../transports/request.js'
import { createSocketRoute } from '../transports/socket/socket.js'
import type { SocketEndpoint } from '../transports/socket/web-sockets.js'
import { registerEvents } from '../transports/sse/sse.js'
import type { TransportContext } from '../transports/transport-context.js'
import { WorkQueue } from '../transports/work-queue.js'
import { CloseStack } from './close-stack.js'
import type { GatewayContext } from './context.js'
import { type Coordination, openCoordination } from './coordination.js'
import { Notifications } from './notifications.js'
import { shareRenewals } from './renewals.js'

export interface PushSideOptions extends Omit<GatewayContext, 'config' | 'limits' | 'brokers' | 'tunnels' | 'nextId'> {
  readonly config: PushConfig
  readonly compat: CompatConfig
  readonly broker: Broker
  /** The same broker, if it is the embedded one. */
  readonly embedded: EmbeddedBroker | undefined
  /** The broker's maximum packet size in bytes, if known. */
  readonly packetSize?: number | undefined
  /** `undefined` for no mails and webhooks. */
  readonly notify: NotifyConfig | undefined
  /** Directory of the journal and the receipts; `undefined` for memory only. */
  readonly data: string | undefined
  readonly limits: LimitsConfig
}

export type PushSide = Awaited<ReturnType<typeof openPush>>

/** Bounds of messages that wait to be written to the journal; beyond, the source stops reading. */
const waiting = { maxWaiting: 100_000, maxWaitingBytes: 64 * 1024 ** 2 }

/** Bounds of the newest events in memory, for clients that reconnect soon. */
const recent = { maxEvents: 10_000, maxBytes: 32 * 1024 ** 2 }

/** Burst of presence and receipt messages, as when ten thousand browsers reconnect. */
const messageBurst = 20_000

/** How long the listeners of a gateway that gives no sign of life remain at least, in milliseconds. */
const minLease = 5000

/** Budget of all request bodies in flight: bytes, or that many bodies of the maximum size, whichever is more. */
const bodyBudget = { bytes: 64 * 1024 ** 2, bodies: 16 }

/**
 * Makes the parts of the push side: the part of the composition root that a plain tunnel never imports.
 *
 * @throws {StartError} if the journal cannot be used; parts opened by then are closed
 */
export async function openPush(options: PushSideOptions) {
  const opened = new CloseStack(options.log)
  try {
    return await assemble(options, opened)
  } catch (error) {
    await opened.close()
    throw error
  }
}

async function assemble(options: PushSideOptions, opened: CloseStack) {
  const { config, log, slices } = options
  const sharedJournal = await openSharedJournal(options)
  const journal: Journal = opened.add(sharedJournal ?? (await openJournal(options)))
  const hub = opened.add(await openHub({ journal, bounds: { ...config, recent }, slices, log }))
  const inbox = new ResponseInbox()
  const source = opened.add(await openSource(options, journal, sharedJournal, inbox))
  const coordination =
    options.shared &&
    sharedJournal &&
    opened.add(await openCoordination(options.shared, sharedJournal, () => source.connected))
  const requests = new Requests({ source, inbox, journal, onEnded: options.metrics.requests.ended })
  options.metrics.requests.watch(() => requests.pending)
  const { presence, messages } = await openPresence(options, source, coordination?.coordinator, opened)
  const clientMessages = openClientMessages(options, source, opened)
  const connections = opened.add(new LiveConnections())
  const polls = opened.add(new OpenPolls())
  const filterQuota = new FilterQuota(config.maxSubscriptionsBytes)
  const receipts = opened.add(
    await openReceiptsOf(options, { journal, publisher: source, presence, tracking: hub.tracking }, coordination),
  )
  const { data, cwd, metrics } = options
  const notifications = opened.add(
    new Notifications({
      ...{ hub, journal, coordination, cwd, log, metrics },
      isConnected: () => source.connected,
      encode: event => eventJson(event, { json: false }),
      deadLetters: data === undefined ? undefined : join(data, 'dead-letters.jsonl'),
      openStore: () => openStore(data, 'notify', 'the mails and webhook calls to be sent', log),
    }),
  )
  await notifications.open(options.notify)
  options.metrics.watchPush(() => ({
    ...hub.counters,
    connected: source.connected,
    journalEvents: journal.size,
    newest: journal.head,
    listeners: presence.size,
    filterBytes: filterQuota.figures.bytes,
    filtersRefused: filterQuota.figures.refused,
    presencePublished: messages.counters.published,
    presenceDropped: messages.counters.dropped,
    clientsPublished: clientMessages?.counters.published ?? 0,
    clientsDropped: clientMessages?.counters.dropped ?? 0,
    receiptsOutstanding: receipts.outstanding,
  }))
  const push = { hub, journal, publisher: source, presence, filterQuota, receipts }
  const parts = { ...openTransportParts(options, journal, connections), connections, polls, push, requests }
  let current = openEndpoints(options, parts)
  /** Of former configurations, with open sockets. */
  let former: SocketEndpoint[] = []
  return {
    /** The busiest topics, for the dashboard. */
    topics: new TopicActivity({ journal }),
    /** Why push is not connected to the broker; `undefined` while it is. */
    get failure() {
      return source.failure
    },
    /** Why the journal is not available; `undefined` while it is. */
    get journalFailure() {
      return journal.failure
    },
    /** The endpoints of the configuration. */
    get endpoints(): PushEndpoints {
      return current
    },
    /** Makes the endpoints of another configuration, for new requests and connections. `commit` puts them into effect. */
    prepare: (context: GatewayContext, next: PushConfig): PushEndpoints & { commit(): void } => {
      const { gate, resolveClient, bodyEncoders } = context
      const { limits } = context.config
      const endpoints = openEndpoints({ ...options, gate, resolveClient, bodyEncoders, limits, config: next }, parts)
      return {
        ...endpoints,
        commit: () => {
          former = [...former, ...current.sockets].filter(({ size }) => size > 0)
          current.replaced()
          current = endpoints
          parts.configure(limits, endpoints.budget)
        },
      }
    },
    /**
     * Notifies by other rules. What waits to be sent stays.
     *
     * @throws {StartError} if a file cannot be used; the former rules apply then
     */
    changeNotify: (notify: NotifyConfig | undefined) => notifications.open(notify),
    /** Subscribes at the broker to other topics. Never rejects. */
    changeTopics: (topics: readonly string[]) => source.changeTopics(topics),
    /** Ends, or restricts, what the access rules no longer allow: to be called when they have changed. */
    review: async (refusalOf: (identity: Identity) => GatewayError | undefined): Promise<void> => {
      await Promise.all([connections.review(refusalOf, options.slicer), polls.finishAll(options.slicer)])
    },
    /** Ends all event streams and polls with a reason. */
    endStreams: (): void => {
      connections.close()
      polls.close()
      requests.close()
      parts.handles?.close()
    },
    /** Ends all sockets, each with its cursor; after `grace` milliseconds, open connections are destroyed. */
    endSockets: async (grace: number): Promise<void> => {
      await Promise.all([...current.sockets, ...former].map(socket => socket.close(grace)))
    },
    /** Idempotent. */
    close: () => opened.close(),
  }
}

/** The endpoints of one configuration. */
export interface PushEndpoints {
  /**
   * Adds the routes of the HTTP API.
   *
   * @param directories names of directories with pages, which are not databases of CouchDB
   */
  register(app: FastifyInstance, directories: ReadonlySet<string>): void
  /** The endpoints of plain WebSockets; the first match counts. */
  readonly sockets: readonly SocketEndpoint[]
}

function boundsOf(config: PushConfig): JournalBounds {
  const reserved = reservedRules(config, { hasClientMessages: config.clients.messages })
  return { ...config, ...waiting, rules: [...config.rules, ...reserved] }
}

/** Imported on demand; `undefined` for a journal of this gateway alone. */
async function openSharedJournal(options: PushSideOptions): Promise<RedisJournal | undefined> {
  const { shared, config, slices, log } = options
  if (!shared) return undefined
  const { openRedisJournal } = await import('../journal/redis-journal.js')
  return openRedisJournal({ config: shared.config, bounds: boundsOf(config), slices, log })
}

/** Imports the journal of the configuration on demand. */
async function openJournal({ config, data, slices, log }: PushSideOptions): Promise<Journal> {
  const bounds = boundsOf(config)
  if (config.journal === 'memory' || data === undefined) {
    const { MemoryJournal } = await import('../journal/memory-journal.js')
    return new MemoryJournal({ bounds, slices, log })
  }
  const { openLevelJournal } = await import('../journal/level-journal.js')
  return openLevelJournal({ directory: join(data, 'journal'), bounds, slices, log })
}

/** Appends the broker's messages to the journal: directly from the embedded broker, through an MQTT session from another. */
function openSource(
  options: PushSideOptions,
  journal: Journal,
  shared: RedisJournal | undefined,
  inbox: ResponseInbox,
): Promise<Source> {
  const { config, broker, embedded, data, packetSize, reservedClientIds, log } = options
  if (embedded) {
    const remembered = new RememberedSubscriptions(config.journal === 'level' ? data : undefined)
    return openEmbeddedSource({ broker: embedded, packetSize, topics: config.topics, remembered, journal, inbox, log })
  }
  const open = (): ReturnType<Broker['open']> => broker.open(internalPeer)
  return openSession({ brokerName: broker.name, open, config, data, journal, shared, reservedClientIds, inbox, log })
}

async function openPresence(
  options: PushSideOptions,
  publisher: Source,
  coordinator: Coordinator | undefined,
  opened: CloseStack,
): Promise<{ presence: Presence & { readonly size: number }; messages: PresenceMessages }> {
  const { shared, config, limits, mqttListeners, log } = options
  const { grace, messagesPerSecond, messages: areMessagesOn } = config.presence
  const messages = opened.add(
    new PresenceMessages({ publisher, bounds: limits, log, mayPublish: fairMessageRate(messagesPerSecond) }),
  )
  const onChange = areMessagesOn ? (change: PresenceChange) => messages.publish(change) : undefined
  const presence =
    coordinator && shared
      ? await openSharedPresence(
          { ...options, shared, coordinator, messages: areMessagesOn ? messages : undefined },
          opened,
        )
      : opened.add(new PresenceRegistry({ grace, accountOf, onChange }))
  mqttListeners.attach(presence)
  return { presence, messages }
}

/** Of all gateways; imported on demand. */
async function openSharedPresence(
  options: Pick<PushSideOptions, 'config' | 'slices' | 'log' | 'metrics'> & {
    readonly shared: SharedRedis
    readonly coordinator: Coordinator
    readonly messages: PresenceMessages | undefined
  },
  opened: CloseStack,
): Promise<SharedPresence> {
  const { shared, coordinator, messages, config, slices, log, metrics } = options
  const { openGatewayMaps } = await import('../storage/gateway-maps.js')
  const { LeaderMessages } = await import('../presence/leader-messages.js')
  const { SharedPresence } = await import('../presence/shared-presence.js')
  const { grace } = config.presence
  const slicer = new TimeSlicer(undefined, undefined, slices)
  const leader =
    messages &&
    new LeaderMessages({
      messages,
      isHeld: token => coordinator.token === token,
      mark: (token, mark) => maps.mark(token, mark),
    })
  const presence = opened.add(new SharedPresence({ grace, accountOf, messages: leader, slicer }))
  const lease = Math.max(grace, minLease)
  const maps = await openGatewayMaps({
    ...{ shared, name: 'presence', leaderLease: coordinator.key, follower: presence, slicer, log, lease },
  })
  opened.add({ close: () => maps.close(grace) })
  presence.attach(maps)
  metrics.watchGateways(() => maps.size)
  if (leader) {
    void leader.lead(coordinator.token)
    opened.add({ close: coordinator.watch(token => leader.lead(token)) })
    opened.add(leader)
  }
  return presence
}

/** `undefined` if they are off. */
function openClientMessages(
  { config, limits, clients, log }: PushSideOptions,
  publisher: Source,
  opened: CloseStack,
): ClientMessages | undefined {
  if (!config.clients.messages) return undefined
  const mayPublish = fairMessageRate(config.clients.messagesPerSecond)
  const messages = opened.add(new ClientMessages({ publisher, bounds: limits, log, mayPublish, accountOf }))
  clients.watch(messages)
  return messages
}

/** Stored like the journal, because receipts are useless without their events. */
async function openReceiptsOf(
  { config, data, limits, shared, log, metrics }: PushSideOptions,
  given: Pick<ReceiptsOptions, 'journal' | 'publisher' | 'presence'> & Pick<Hub, 'tracking'>,
  coordination: Coordination | undefined,
): Promise<Receipts> {
  const parts = { ...given, count: metrics.receipts }
  const bounds = {
    maxReceipts: config.maxReceipts,
    topic: limits,
    mayPublish: messageRate(config.receiptMessagesPerSecond),
  }
  if (!coordination || !shared) {
    const directory = config.journal === 'memory' ? undefined : data
    return openReceipts({ ...parts, bounds, log, store: await openStore(directory, 'receipts', 'the receipts', log) })
  }
  const { openSharedReceipts } = await import('../receipts/shared-receipts.js')
  const { coordinator, catchUp } = coordination
  const openOwn = (token: string): Store => coordination.openStore('receipts', token)
  return openSharedReceipts({ ...parts, bounds, log, shared, coordinator, catchUp, openStore: openOwn })
}

/** Imported on demand. @param data `undefined` for memory only */
async function openStore(data: string | undefined, name: string, holds: string, log: Logger): Promise<Store> {
  if (data === undefined) {
    const { MemoryStore } = await import('../storage/memory-store.js')
    return new MemoryStore()
  }
  const { openLevelStore } = await import('../storage/level-store.js')
  return openLevelStore({ directory: join(data, name), holds, log })
}

/** Parts of the transports that stay while the configuration changes. */
function openTransportParts(options: PushSideOptions, journal: Journal, connections: LiveConnections) {
  const { compat, limits, slices, metrics, group, access, shareLimit, state } = options
  const budgetOf = ({ bodySize }: LimitsConfig): number => Math.max(bodyBudget.bytes, bodyBudget.bodies * bodySize)
  let { bodySize } = limits
  let budget = new BodyBudget(budgetOf(limits))
  metrics.watchBodies(() => budget.used)
  const publishes = new RateLimits(publishRate(limits))
  shareLimit?.('publishes', publishes)
  return {
    /** Of all request bodies in flight. */
    bodyBudget: (next: LimitsConfig): BodyBudget =>
      next.bodySize === bodySize ? budget : new BodyBudget(budgetOf(next)),
    publishes,
    queue: new WorkQueue(options.tickBudget.open(), slices),
    renewElsewhere: group && shareRenewals(group, connections, access.tickets),
    handles: compat.rrr === 'off' ? undefined : new Handles({ journal, state, config: compat.rrr }),
    feeds: new OpenFeeds(),
    publishers: new Publishers(),
    configure: (next: LimitsConfig, nextBudget: BodyBudget): void => {
      publishes.configure(publishRate(next))
      bodySize = next.bodySize
      budget = nextBudget
    },
  }
}

interface EndpointParts extends ReturnType<typeof openTransportParts> {
  readonly connections: LiveConnections
  readonly polls: OpenPolls
  readonly push: Omit<TransportContext['push'], 'config'>
  readonly requests: Requests
}

function openEndpoints(options: PushSideOptions, parts: EndpointParts) {
  const { limits, gate, unreadResponses, bodyEncoders, anonymousPublishes, slices, state, log, metrics, config } =
    options
  const { connections, polls, queue, renewElsewhere } = parts
  const { bodySize, bodyTimeout, jsonValues } = limits
  const budget = parts.bodyBudget(limits)
  const bodies = { limit: bodySize, budget, timeout: bodyTimeout, jsonValues, slices }
  let isReplaced = false
  const transport: TransportContext = {
    ...{ gate, state, unreadResponses, bodyEncoders, anonymousPublishes, log, metrics },
    ...{ connections, polls, renewElsewhere, bodies, queue },
    push: { ...parts.push, config },
    isReplaced: () => isReplaced,
  }
  return {
    sockets: createSockets(options, transport),
    register: (app: FastifyInstance, directories: ReadonlySet<string>): void =>
      registerRoutes(app, options, { ...parts, ...transport }, directories),
    budget,
    /** To be called when others have their place. */
    replaced: (): void => {
      isReplaced = true
    },
  }
}

/** The WebSocket endpoints; RRR's last, because its prefix may be `/`. */
function createSockets(options: PushSideOptions, transport: TransportContext): SocketEndpoint[] {
  const { compat, limits, resolveClient, packetSize } = options
  const { closeTimeout } = limits
  const { perSecond, burst } = publishRate(limits)
  const publishes = perSecond === 'off' ? undefined : { perSecond, burst }
  const sockets: SocketEndpoint[] = [createSocketRoute({ ...transport, resolveClient, publishes, closeTimeout })]
  if (compat.rrr !== 'off') {
    const rrr = { config: compat.rrr, topic: limits, packetSize, publishes, closeTimeout }
    sockets.push(createRrrSocketRoute({ ...transport, ...rrr }))
  }
  return sockets
}

function registerRoutes(
  app: FastifyInstance,
  { compat }: PushSideOptions,
  {
    requests,
    publishes,
    handles,
    feeds,
    publishers,
    ...transport
  }: Omit<EndpointParts, 'push' | 'polls'> & TransportContext,
  directories: ReadonlySet<string>,
): void {
  registerEvents(app, transport)
  registerConnections(app, transport)
  registerPoll(app, transport)
  registerPublish(app, { ...transport, publishes })
  registerRequest(app, { ...transport, publishes, requests })
  registerReceipts(app, transport)
  registerPresence(app, transport)
  registerOpenApi(app, transport)
  if (compat.rrr !== 'off') registerRrr(app, { ...transport, config: compat.rrr, handles })
  if (compat.couchdb !== 'off') registerCouchdb(app, transport, { ...compat.couchdb, directories })
  if (compat.pere !== 'off')
    registerPere(app, { ...transport, prefix: compat.pere.prefix, publishes, feeds, publishers })
}

function publishRate({ publishesPerSecond: perSecond, publishesBurst: burst }: LimitsConfig): OptionalRate {
  return { perSecond, burst }
}

/** Limits the gateway's own messages: without a limit, they would evict other events. */
function messageRate(perSecond: number | 'off'): (() => boolean) | undefined {
  if (perSecond === 'off') return undefined
  const bucket = new TokenBucket({ perSecond, burst: messageBurst })
  return () => bucket.take()
}

/** As `messageRate`; one account may use half of it. */
function fairMessageRate(perSecond: number | 'off'): ((account: string) => boolean) | undefined {
  const rate = messageRate(perSecond)
  if (perSecond === 'off' || !rate) return undefined
  const shares = new RateLimits({ perSecond: Math.max(1, perSecond / 2), burst: messageBurst / 2 })
  return account => shares.take(account) === 0 && rate()
}
