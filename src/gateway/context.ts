import { type Access, openAccess } from '../access/access.js'
import { type AnonymousPublishes, anonymousPublishesOf } from '../access/anonymous-publishes.js'
import { type ClientResolver, compileClientResolver } from '../access/client-address.js'
import { compileDetailReaders, type DetailReaders } from '../access/detail-readers.js'
import { compileHosts, type HostPolicy } from '../access/hosts.js'
import { ConnectionLimits } from '../access/limits.js'
import { compileOrigins } from '../access/origins.js'
import { RateLimits } from '../access/rate-limits.js'
import { SiteRules } from '../access/site-rules.js'
import { UserLimits } from '../access/user-limits.js'
import type { Logger } from '../base/log.js'
import { createMetrics, type Metrics } from '../base/metrics.js'
import { SliceMonitor } from '../base/slice-monitor.js'
import { TimeSlicer } from '../base/time-slicer.js'
import { ambientCredentials } from '../config/access.js'
import { namesSites } from '../config/forms.js'
import { isWebOnLoopback } from '../config/listeners.js'
import type { Config } from '../config/schema.js'
import { ApiGate, type ApiGateOptions } from '../http/api-gate.js'
import { UnreadResponses } from '../http/unread-responses.js'
import { ReservedClientIds } from '../mqtt/reserved-client-ids.js'
import { MqttSubscribers } from '../presence/mqtt-subscribers.js'
import { Tunnels } from '../tunnel/tunnels.js'
import { Brokers, embeddedHooks } from './brokers.js'
import type { CloseStack } from './close-stack.js'

/** Parts that several steps of the assembly need, each made once. */
export interface GatewayContext {
  readonly config: Config
  /** Absolute; relative paths of the configuration begin here. */
  readonly cwd: string
  readonly log: Logger
  readonly metrics: Metrics
  readonly access: Access
  readonly brokers: Brokers
  readonly tunnels: Tunnels
  readonly users: UserLimits
  readonly limits: ConnectionLimits
  /** Rates of clients without a user name; `undefined` for any. */
  readonly anonymousPublishes: AnonymousPublishes | undefined
  readonly mqttListeners: MqttSubscribers
  readonly reservedClientIds: ReservedClientIds
  readonly resolveClient: ClientResolver
  readonly servesHost: HostPolicy
  readonly seesDetails: DetailReaders
  readonly site: SiteRules
  readonly gate: ApiGate
  readonly slices: SliceMonitor
  readonly unreadResponses: UnreadResponses
  /** Names one connection in the log. */
  readonly nextId: () => string
}

/**
 * Makes the shared parts.
 *
 * @param opened closes them
 * @throws {StartError} when a password or key file cannot be used
 */
export async function openContext(
  config: Config,
  log: Logger,
  cwd: string,
  opened: CloseStack,
): Promise<GatewayContext> {
  const metrics = opened.add(createMetrics())
  const access = opened.add(await openAccess(config, cwd, log))
  const users = new UserLimits(config.limits.connectionsPerUser)
  const limits = new ConnectionLimits(config.limits)
  const resolveClient = compileClientResolver(config.trustedProxies)
  const mqttListeners = new MqttSubscribers()
  const reservedClientIds = new ReservedClientIds()
  const anonymousPublishes = isForLoopback(config) ? undefined : anonymousPublishesOf(config.limits)
  const slices = opened.add(
    new SliceMonitor({ onSlow: slice => log.debug(slice, 'The event loop was blocked by one task') }),
  )
  metrics.watchSlices(() => slices.figures)
  const slicer = new TimeSlicer(undefined, undefined, slices)
  const brokerParts = { access, users, metrics, mqttListeners, slicer, slices, reservedClientIds, anonymousPublishes }
  const brokers = opened.add(new Brokers(config, cwd, log, embeddedHooks(config, brokerParts)))
  const tunnels = new Tunnels(metrics, config.limits.bytesPerSecond)
  metrics.watchBuffers(() => tunnels.bufferedBytes)
  return {
    ...{ config, cwd, log, metrics, access, users, limits, resolveClient, brokers, tunnels, slices },
    ...{ mqttListeners, reservedClientIds, anonymousPublishes },
    servesHost: compileHosts({
      names: config.hosts,
      tcp: isWebOnLoopback(config) ? 'loopback' : 'any',
      unix: isForLoopback(config) ? 'loopback' : 'any',
    }),
    seesDetails: compileDetailReaders(config.metrics.allow),
    site: new SiteRules({ allow: config.limits.allow, deny: config.deny }),
    gate: apiGate(config, access, { resolveClient, connections: limits, users }),
    unreadResponses: new UnreadResponses({ log, metrics }),
    nextId: connectionIds(),
  }
}

/** Admission of API requests. */
function apiGate(
  config: Config,
  { authenticator, rules }: Access,
  shared: Pick<ApiGateOptions, 'resolveClient' | 'connections' | 'users'>,
): ApiGate {
  const { requestsPerSecond: perSecond, requestsBurst: burst } = config.limits
  const origins = config.push === 'off' ? [] : config.push.origins
  return new ApiGate({
    ...shared,
    authenticator,
    rules,
    credentials: config.access ?? {},
    allowsOrigin: compileOrigins(origins),
    allowsCredentials:
      ambientCredentials(config.access).length > 0 ? compileOrigins(origins.filter(namesSites)) : undefined,
    requests: perSecond === 'off' ? undefined : new RateLimits({ perSecond, burst }),
  })
}

/** Without any access configuration, the gateway serves loopback only (see config/checks.ts). */
function isForLoopback({ anonymous, access }: Config): boolean {
  return !anonymous && access === undefined
}

/** Short names for connections in the log, unique within the process. */
function connectionIds(): () => string {
  let last = 0
  return () => (++last).toString(36)
}
