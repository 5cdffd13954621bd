import { resolve } from 'node:path'
import { openAccess } from '../access/access.js'
import { AnonymousPublishes, anonymousRates } from '../access/anonymous-publishes.js'
import { type ClientResolver, compileClientResolver } from '../access/client-address.js'
import { compileDetailReaders } from '../access/detail-readers.js'
import { compileHosts } from '../access/hosts.js'
import { LimitExchange } from '../access/limit-exchange.js'
import { accountOf, ConnectionLimits, networkOf } from '../access/limits.js'
import { MqttAuthorizer } from '../access/mqtt-authorizer.js'
import { compileOrigins } from '../access/origins.js'
import { type OptionalRate, RateLimits, TokenBucket } from '../access/rate-limits.js'
import { SiteRules } from '../access/site-rules.js'
import { UserLimits } from '../access/user-limits.js'
import { ConnectedClients } from '../base/connected-clients.js'
import type { Logger } from '../base/log.js'
import { createMetrics } from '../base/metrics.js'
import { SliceMonitor } from '../base/slice-monitor.js'
import { TickBudget } from '../base/tick-budget.js'
import { TimeSlicer } from '../base/time-slicer.js'
import type { EmbeddedHooks } from '../broker/embedded/embedded.js'
import type { CreateRateLimit } from '../broker/embedded/throttle.js'
import { ambientCredentials } from '../config/access.js'
import { namesSites } from '../config/forms.js'
import { isWebOnLoopback } from '../config/listeners.js'
import { redisOf } from '../config/push.js'
import type { Config, TunnelConfig } from '../config/schema.js'
import { ApiGate, type ApiGateOptions } from '../http/api-gate.js'
import { bodyEncoders, Compressor } from '../http/compressor.js'
import { UnreadResponses } from '../http/unread-responses.js'
import { MqttSubscribers } from '../presence/mqtt-subscribers.js'
import { MemoryState } from '../storage/memory-state.js'
import type { SharedRedis } from '../storage/shared-redis.js'
import type { SharedState } from '../storage/shared-state.js'
import type { TunnelOptions } from '../tunnel/tunnel.js'
import { Tunnels } from '../tunnel/tunnels.js'
import type { WorkerGroup } from '../workers/primary-process.js'
import { openAccessLog } from './access-log.js'
import { Brokers } from './brokers.js'
import type { CloseStack } from './close-stack.js'

/** Parts that several steps of the assembly need. A reload makes those anew that follow from the configuration alone, and configures the others. */
export type GatewayContext = SharedParts & CompiledParts
/** Parts that are made once. */
export type SharedParts = Awaited<ReturnType<typeof openParts>>
/** Parts that follow from the configuration alone. */
export type CompiledParts = ReturnType<typeof compileParts>

interface Place {
  readonly cwd: string
  readonly group: WorkerGroup | undefined
  /** Whether it is attached to servers of another program. */
  readonly isAttached: boolean
}

/**
 * Makes the shared parts.
 *
 * @param place `cwd` is absolute; relative paths of the configuration begin there
 * @param opened closes the parts
 * @throws {StartError} when a password or key file cannot be used
 */
export async function openContext(
  config: Config,
  log: Logger,
  place: Place,
  opened: CloseStack,
): Promise<GatewayContext> {
  const parts = await openParts(config, log, place, opened)
  return { ...parts, ...compileParts(config, parts) }
}

async function openParts(config: Config, log: Logger, { cwd, group, isAttached }: Place, opened: CloseStack) {
  const shared = await openShared(config, log, cwd, opened)
  const state = await openState(shared, group)
  const metrics = opened.add(createMetrics())
  group?.onQuestion('metrics', () => metrics.registry.getMetricsAsJSON())
  const access = opened.add(await openAccess(config, cwd, log, state))
  const share = (shared ?? group) && opened.add(new LimitExchange({ state, log })).share
  const users = new UserLimits(config.limits.connectionsPerUser, group?.counts.others('users'))
  const limits = new ConnectionLimits({ ...config.limits, others: group?.counts.others('connections'), share })
  const mqttListeners = new MqttSubscribers()
  const reservedClientIds = new Set<string>()
  const anonymousPublishes = isForLoopback(config)
    ? undefined
    : new AnonymousPublishes({ ...anonymousRates(config.limits), share })
  const requests = new RateLimits(requestRate(config))
  share?.('requests', requests)
  const publishRate: PublishRate = { current: config.limits }
  const slices = opened.add(
    new SliceMonitor({ onSlow: slice => log.debug(slice, 'The event loop was blocked by one task') }),
  )
  metrics.watchSlices(() => slices.figures)
  const tickBudget = new TickBudget()
  const slicer = new TimeSlicer(tickBudget.open(), undefined, slices)
  const clients = new ConnectedClients(slicer, group?.worker)
  const resolver = { current: compileClientResolver(config.trustedProxies) }
  const resolveClient: ClientResolver = request => resolver.current(request)
  const requestLog = await openAccessLog(config, { cwd, resolveClient, log, metrics }, opened)
  const { authenticator, rules } = access
  const hooks: EmbeddedHooks = {
    authorizer: authenticator && new MqttAuthorizer({ authenticator, rules, users }),
    createRateLimit: rateLimitsOf(publishRate, anonymousPublishes),
    onThrottled: metrics.delayed,
    onDenied: metrics.denied,
    watchRetained: metrics.watchRetained,
    subscriptions: mqttListeners,
    sessions: metrics.sessions,
    filters: metrics.filters,
    ...{ reservedClientIds, slicer, slices, accountOf, networkOf },
  }
  const brokers = opened.add(new Brokers(config, cwd, log, hooks))
  const tunnels = new Tunnels(metrics, config.limits.bytesPerSecond, clients)
  metrics.watchBuffers(() => tunnels.bufferedBytes)
  return {
    /** What several gateways share; `undefined` for a gateway alone. */
    shared,
    state,
    /** Shares a rate limit with other gateways or workers; `undefined` for one alone. */
    shareLimit: share,
    /** What worker processes share; `undefined` for a single process. */
    group,
    ...{ cwd, log, metrics, access, users, limits, requests, brokers, tunnels, clients },
    ...{ tickBudget, slices, slicer, isAttached },
    /** For parts that are made once. */
    resolver,
    /** `undefined` without one. */
    accessLog: requestLog?.accessLog,
    /** Opens its file again, after it was renamed. */
    reopenAccessLog: async () => requestLog?.reopen(),
    compressor: new Compressor(),
    /** The configured tunnels, by the options of their connections. */
    tunnelConfigs: new WeakMap<TunnelOptions, TunnelConfig>(),
    ...{ mqttListeners, reservedClientIds, anonymousPublishes, publishRate },
    unreadResponses: new UnreadResponses({ log, metrics }),
    /** Names one connection in the log. */
    nextId: connectionIds(group?.worker),
  }
}

/** @throws {TypeError} naming the first invalid entry of a list */
export function compileParts(config: Config, parts: SharedParts) {
  const { compression } = config
  const { isAttached, compressor } = parts
  const resolveClient = compileClientResolver(config.trustedProxies)
  return {
    ...{ config, resolveClient },
    servesHost: compileHosts({
      names: config.hosts,
      tcp: isWebOnLoopback(config) && !isAttached ? 'loopback' : 'any',
      unix: isForLoopback(config) ? 'loopback' : 'any',
    }),
    seesDetails: compileDetailReaders(config.metrics.allow),
    site: new SiteRules({ allow: config.limits.allow, deny: config.deny }),
    gate: apiGate(config, resolveClient, parts),
    /** Compress responses to polls; `undefined` for none. */
    bodyEncoders: compression !== 'off' && compression.polls ? bodyEncoders(compression, compressor) : undefined,
  }
}

/** Applies another configuration to the parts that are made once. Access control and brokers are not among them. */
export function configureParts(config: Config, parts: GatewayContext): void {
  const { limits } = config
  const { limits: connections, users, requests, anonymousPublishes, publishRate, tunnels } = parts
  parts.resolver.current = parts.resolveClient
  parts.accessLog?.configure(config)
  connections.configure(limits)
  users.configure(limits.connectionsPerUser)
  requests.configure(requestRate({ limits }))
  anonymousPublishes?.configure(anonymousRates(limits))
  publishRate.current = limits
  tunnels.configure(limits.bytesPerSecond)
}

/** Imported on demand. */
async function openShared(
  { push }: Config,
  log: Logger,
  cwd: string,
  opened: CloseStack,
): Promise<SharedRedis | undefined> {
  const config = push === 'off' ? undefined : redisOf(push)
  if (!config) return undefined
  const { openSharedRedis } = await import('../storage/shared-redis.js')
  const { passwordFile, ca, ...redis } = config
  const files = {
    ...(passwordFile !== undefined && { passwordFile: resolve(cwd, passwordFile) }),
    ...(ca !== undefined && { ca: resolve(cwd, ca) }),
  }
  return opened.add(await openSharedRedis({ ...redis, ...files }, log))
}

async function openState(shared: SharedRedis | undefined, group: WorkerGroup | undefined): Promise<SharedState> {
  if (!shared) return group?.state ?? new MemoryState()
  const { RedisState } = await import('../storage/redis-state.js')
  return new RedisState(shared)
}

function requestRate({ limits }: Pick<Config, 'limits'>): OptionalRate {
  return { perSecond: limits.requestsPerSecond, burst: limits.requestsBurst }
}

function apiGate(
  config: Config,
  resolveClient: ApiGateOptions['resolveClient'],
  { access: { authenticator, rules }, limits, users, requests }: SharedParts,
): ApiGate {
  const origins = config.push === 'off' ? [] : config.push.origins
  return new ApiGate({
    ...{ resolveClient, authenticator, rules, requests, users },
    connections: limits,
    credentials: config.access ?? {},
    allowsOrigin: compileOrigins(origins),
    allowsCredentials:
      ambientCredentials(config.access).length > 0 ? compileOrigins(origins.filter(namesSites)) : undefined,
  })
}

/** Without any access configuration, the gateway serves loopback only (see config/checks.ts). */
function isForLoopback({ anonymous, access }: Config): boolean {
  return !anonymous && access === undefined
}

/** Short names for connections in the log, unique within the process, and among workers. */
function connectionIds(worker: number | undefined): () => string {
  const prefix = worker === undefined ? '' : `${worker}-`
  let last = 0
  return () => prefix + (++last).toString(36)
}

/** The options of the rate of publishing, for connections from now on. */
interface PublishRate {
  current: Pick<Config['limits'], 'publishesPerSecond' | 'publishesBurst'>
}

/** Rate limits of publishing: the rate of each connection, and by that of addresses for clients without a user name. */
function rateLimitsOf(options: PublishRate, anonymous: AnonymousPublishes | undefined): CreateRateLimit {
  return ({ address }, isNamed) => {
    const { publishesPerSecond: perSecond, publishesBurst: burst } = options.current
    const rate = perSecond === 'off' ? undefined : { perSecond, burst }
    if (!rate && !anonymous) return undefined
    const bucket = rate && new TokenBucket(rate)
    return {
      batchSize: rate?.perSecond ?? Number.POSITIVE_INFINITY,
      spend: (messages, bytes) => {
        const delay = isNamed() ? 0 : (anonymous?.spend(address, messages, bytes) ?? 0)
        return Math.max(bucket?.spend(messages) ?? 0, delay)
      },
    }
  }
}
