import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { AnonymousPublishes } from '../access/anonymous-publishes.js'
import type { ClientResolver } from '../access/client-address.js'
import { accountOf } from '../access/limits.js'
import { RateLimits, TokenBucket } from '../access/rate-limits.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { type Broker, internalPeer } from '../broker/broker.js'
import type { EmbeddedBroker } from '../broker/embedded/embedded.js'
import { registerCouchdb } from '../compat/couchdb.js'
import { registerPere } from '../compat/pere.js'
import { registerRrr } from '../compat/rrr/push.js'
import { createRrrSocketRoute } from '../compat/rrr/socket.js'
import type { CompatConfig } from '../config/compat.js'
import type { NotifyConfig } from '../config/notify.js'
import type { PushConfig } from '../config/push.js'
import type { LimitsConfig } from '../config/schema.js'
import type { ApiGate } from '../http/api-gate.js'
import { BodyBudget } from '../http/body-budget.js'
import type { UnreadResponses } from '../http/unread-responses.js'
import type { UpgradeRoute } from '../http/upgrade-route.js'
import { FilterQuota } from '../hub/filter-quota.js'
import { openHub } from '../hub/hub.js'
import type { Notify, NotifyOptions } from '../integrations/mail/notify.js'
import type { Journal, JournalBounds } from '../journal/journal.js'
import { reservedRules } from '../journal/reserved-topics.js'
import type { ReservedClientIds } from '../mqtt/reserved-client-ids.js'
import type { MqttSubscribers } from '../presence/mqtt-subscribers.js'
import { PresenceMessages } from '../presence/presence-messages.js'
import { PresenceRegistry } from '../presence/presence-registry.js'
import { openReceipts } from '../receipts/open-receipts.js'
import type { ReceiptStore } from '../receipts/store.js'
import { type EmbeddedSourceOptions, openEmbeddedSource } from '../sources/embedded.js'
import { openSession } from '../sources/mqtt/session.js'
import { RememberedSubscriptions } from '../sources/remembered-subscriptions.js'
import type { Source } from '../sources/source.js'
import { registerConnections } from '../transports/connections.js'
import { LiveConnections } from '../transports/live-connections.js'
import { registerOpenApi } from '../transports/openapi.js'
import { registerPoll } from '../transports/poll/poll.js'
import { registerPresence } from '../transports/presence.js'
import { registerPublish } from '../transports/publish.js'
import { registerReceipts } from '../transports/receipts.js'
import { createSocketRoute } from '../transports/socket/socket.js'
import { registerEvents } from '../transports/sse/sse.js'
import type { TransportContext } from '../transports/transport-context.js'
import { WorkQueue } from '../transports/work-queue.js'

/** What the push side needs. */
export interface PushSideOptions {
  readonly config: PushConfig
  readonly compat: CompatConfig
  readonly broker: Broker
  /** The same, where it is the one inside this process. */
  readonly embedded: EmbeddedBroker | undefined
  /** The largest MQTT packet that it takes, in bytes; left out where nobody knows. */
  readonly packetSize?: number | undefined
  /** What mails are sent of; `undefined` for nothing. */
  readonly notify: NotifyConfig | undefined
  /** Relative paths of the configuration begin here. */
  readonly cwd: string
  /** Where the journal and what belongs to it are kept; `undefined` for memory only. */
  readonly data: string | undefined
  /** Who listens with MQTT, at the embedded broker. */
  readonly mqttListeners: MqttSubscribers
  readonly slices: SliceMonitor
  /** Gets the client ids of the session with a broker elsewhere. */
  readonly reservedClientIds: ReservedClientIds
  readonly limits: LimitsConfig
  readonly gate: ApiGate
  readonly resolveClient: ClientResolver
  /** Rates of clients without a user name; `undefined` for any. */
  readonly anonymousPublishes: AnonymousPublishes | undefined
  readonly untaken: UnreadResponses
  readonly log: Logger
  readonly metrics: Metrics
}

/** An endpoint of WebSockets. Whoever leads handshakes there has let them in. */
export interface SocketEndpoint
  extends Pick<UpgradeRoute, 'matches' | 'isEverywhere' | 'chooseSubprotocol' | 'check' | 'checkQuery' | 'accept'> {
  /**
   * Ends all that are open. Idempotent.
   *
   * @param grace milliseconds after which those that have not closed are cut off
   */
  close(grace: number): Promise<void>
}

/** The push side of a gateway. */
export interface PushSide {
  /** Why it has no session with the broker; `undefined` while it has one. */
  readonly failure: string | undefined
  /**
   * Adds the routes of the HTTP API.
   *
   * @param directories names of those that pages are served of, which are no databases of CouchDB's
   */
  register(app: FastifyInstance, directories: ReadonlySet<string>): void
  /** The endpoints of plain WebSockets; the first that matches is taken. */
  readonly sockets: readonly SocketEndpoint[]
  /** Ends all event streams and polls, each with its reason. */
  endStreams(): void
  /**
   * Ends all sockets, each with its cursor.
   *
   * @param grace milliseconds after which those that have not closed are cut off
   */
  endSockets(grace: number): Promise<void>
  /** Idempotent. */
  close(): Promise<void>
}

/** Messages that may wait to be written to the journal, and their bytes; the session waits when there are more. */
const waiting = { maxWaiting: 100_000, maxWaitingBytes: 64 * 1024 ** 2 }

/** The newest events, which those who come back after a moment get from memory. */
const recent = { maxEvents: 10_000, maxBytes: 32 * 1024 ** 2 }

/** Messages of mqway's own that may come at once: when ten thousand browsers come back, say. */
const ownBurst = 20_000

/** Bodies of requests that may be on their way together, in bytes, or as many of the largest size. */
const bodyBudget = { bytes: 64 * 1024 ** 2, bodies: 16 }

/**
 * Makes the parts of the push side and hands each what it needs: the part of the composition root that a plain tunnel
 * never loads.
 *
 * @throws {StartError} where the journal cannot be used; what was opened by then is closed
 */
export async function openPush(options: PushSideOptions): Promise<PushSide> {
  const { config, compat, broker, embedded, data, limits, gate, resolveClient, untaken, log, metrics, slices } = options
  const closers: (() => unknown)[] = []
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    const journal = await openJournal(config, data, slices, log)
    closers.push(() => journal.close())
    const hub = await openHub({ journal, bounds: { ...config, recent }, slices, log })
    closers.push(() => hub.close())
    const { packetSize, reservedClientIds } = options
    const source = embedded
      ? await openEmbedded({ broker: embedded, packetSize, config, data, journal, log })
      : await openSession({
          ...{ brokerName: broker.name, open: () => broker.open(internalPeer) },
          ...{ config, data, journal, reservedClientIds, log },
        })
    closers.push(() => source.close())
    const messages = new PresenceMessages({
      ...{ publisher: source, bounds: limits, log },
      mayTell: fairPaceOf(config.presence.messagesPerSecond),
    })
    closers.push(() => messages.close())
    const { grace } = config.presence
    const presence = new PresenceRegistry({
      ...{ grace, accountOf },
      messages: config.presence.messages ? messages : undefined,
    })
    closers.push(() => presence.close())
    options.mqttListeners.attach(presence)
    const connections = new LiveConnections()
    const filterQuota = new FilterQuota(config.maxSubscriptionsBytes)
    closers.push(() => connections.close())

    const receipts = await openReceipts({
      store: await openReceiptStore(config, data, log),
      ...{ journal, publisher: source, presence, log },
      tracking: hub.tracking,
      bounds: {
        maxReceipts: config.maxReceipts,
        topic: limits,
        mayTell: paceOf(config.receiptMessagesPerSecond),
      },
    })
    closers.push(() => receipts.close())
    if (options.notify) {
      const parts = { config: options.notify, hub, journal, data, cwd: options.cwd, log }
      const mails = await openMails({ ...parts, isConnected: () => source.connected })
      closers.push(() => mails.close())
      metrics.watchMails(() => mails.figures)
    }
    metrics.watchPush(() => ({
      ...hub.counters,
      connected: source.connected,
      journalEvents: journal.size,
      newest: journal.head,
      listeners: presence.size,
      filterBytes: filterQuota.figures.bytes,
      filtersRefused: filterQuota.figures.refused,
      presencePublished: messages.counters.published,
      presenceDropped: messages.counters.dropped,
    }))
    const push = { hub, journal, publisher: source, presence, filterQuota, receipts, config }
    const budget = new BodyBudget(Math.max(bodyBudget.bytes, bodyBudget.bodies * limits.bodySize))
    const bodies = {
      limit: limits.bodySize,
      budget,
      timeout: limits.bodyTimeout,
      jsonValues: limits.jsonValues,
      slices,
    }
    metrics.watchBodies(() => budget.used)
    const { anonymousPublishes } = options
    const queue = new WorkQueue(slices)
    const shared = { gate, bodies, queue, untaken, anonymousPublishes, log, metrics }
    const transport: TransportContext = { push, connections, ...shared }
    const { publishesPerSecond: perSecond, publishesBurst: burst, closeTimeout } = limits
    const rate = perSecond === 'off' ? undefined : { perSecond, burst }
    const publishes = rate && new RateLimits(rate)
    const sockets: SocketEndpoint[] = [
      createSocketRoute({ ...transport, resolveClient, publishes: rate, closeTimeout }),
    ]
    // The last, as its prefix may be /.
    if (compat.rrr !== 'off') {
      const own = { config: compat.rrr, topic: limits, packetSize }
      sockets.push(createRrrSocketRoute({ ...transport, ...own, publishes: rate, closeTimeout }))
    }
    const polls: { close(): void }[] = []
    return {
      get failure() {
        return source.failure
      },
      register: (app, directories) => {
        registerEvents(app, transport)
        registerConnections(app, transport)
        polls.push(registerPoll(app, transport))
        registerPublish(app, { ...transport, publishes })
        registerReceipts(app, transport)
        registerPresence(app, transport)
        registerOpenApi(app, transport)
        if (compat.rrr !== 'off') polls.push(registerRrr(app, { ...transport, config: compat.rrr }))
        if (compat.couchdb !== 'off') polls.push(registerCouchdb(app, transport, { ...compat.couchdb, directories }))
        if (compat.pere !== 'off') registerPere(app, { ...transport, prefix: compat.pere.prefix, publishes })
      },
      sockets,
      endStreams: () => {
        connections.close()
        for (const poll of polls) poll.close()
      },
      endSockets: async grace => {
        await Promise.all(sockets.map(socket => socket.close(grace)))
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Tells whether one more of mqway's own messages may come: without end, they would evict everybody's events. */
function paceOf(perSecond: number | 'off'): (() => boolean) | undefined {
  if (perSecond === 'off') return undefined
  const bucket = new TokenBucket({ perSecond, burst: ownBurst })
  return () => bucket.take()
}

/** As `paceOf`; one account may have half of it. */
function fairPaceOf(perSecond: number | 'off'): ((account: string) => boolean) | undefined {
  const pace = paceOf(perSecond)
  if (perSecond === 'off' || !pace) return undefined
  const shares = new RateLimits({ perSecond: Math.max(1, perSecond / 2), burst: ownBurst / 2 })
  return account => shares.take(account) === 0 && pace()
}

/** The source of the broker inside this process. */
function openEmbedded({
  config,
  data,
  ...parts
}: Omit<EmbeddedSourceOptions, 'topics' | 'remembered'> & {
  readonly config: PushConfig
  readonly data: string | undefined
}): Promise<Source> {
  const remembered = new RememberedSubscriptions(config.journal === 'level' ? data : undefined)
  return openEmbeddedSource({ ...parts, topics: config.topics, remembered })
}

/** Loaded where mails are sent. */
async function openMails(options: NotifyOptions): Promise<Notify> {
  const { openNotify } = await import('../integrations/mail/notify.js')
  return openNotify(options)
}

/** Both kinds are loaded where they are wanted: the one on disk has a database with it. */
async function openJournal(
  config: PushConfig,
  data: string | undefined,
  slices: SliceMonitor,
  log: Logger,
): Promise<Journal> {
  const rules = [...config.rules, ...reservedRules(config)]
  const bounds: JournalBounds = { ...config, ...waiting, rules }
  if (config.journal === 'memory' || data === undefined) {
    const { MemoryJournal } = await import('../journal/memory-journal.js')
    return new MemoryJournal({ bounds, slices, log })
  }
  const { openLevelJournal } = await import('../journal/level-journal.js')
  return openLevelJournal({ directory: join(data, 'journal'), bounds, slices, log })
}

/** As the journal: what is known of an event is worth nothing without it. */
async function openReceiptStore(config: PushConfig, data: string | undefined, log: Logger): Promise<ReceiptStore> {
  if (config.journal === 'memory' || data === undefined) {
    const { MemoryReceiptStore } = await import('../receipts/memory-store.js')
    return new MemoryReceiptStore()
  }
  const { openLevelReceiptStore } = await import('../receipts/level-store.js')
  return openLevelReceiptStore({ directory: join(data, 'receipts'), log })
}
