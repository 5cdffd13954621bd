import { resolve } from 'node:path'
import { type Access, openAccess } from '../access/access.js'
import { anonymousPublishesOf } from '../access/anonymous-publishes.js'
import { type Client, compileClientResolver } from '../access/client-address.js'
import { compileDetailReaders } from '../access/detail-readers.js'
import { compileHosts } from '../access/hosts.js'
import { ConnectionLimits } from '../access/limits.js'
import { compileOrigins, type OriginPolicy } from '../access/origins.js'
import { RateLimits } from '../access/rate-limits.js'
import { SiteRules } from '../access/site-rules.js'
import { SocketLimits } from '../access/socket-limits.js'
import { compileTunnelConditions } from '../access/tunnel-conditions.js'
import { UserLimits } from '../access/user-limits.js'
import type { Logger } from '../base/log.js'
import { createMetrics, type Metrics } from '../base/metrics.js'
import { spellingsOf } from '../base/path-spellings.js'
import { SliceMonitor } from '../base/slice-monitor.js'
import { TimeSlicer } from '../base/time-slicer.js'
import type { Broker } from '../broker/broker.js'
import { addedByBrowsers, isOfNamedSites } from '../config/browser-credentials.js'
import { isWebOnLoopback, portsOf } from '../config/listeners.js'
import { developmentCertificates, listOwnFiles } from '../config/private-files.js'
import { pushOf } from '../config/push.js'
import type { Config, TunnelConfig } from '../config/schema.js'
import { ApiGate, type ApiGateOptions } from '../http/api-gate.js'
import { normalizePath } from '../http/request-target.js'
import { UnreadResponses } from '../http/unread-responses.js'
import type { UpgradeRoute } from '../http/upgrade-route.js'
import { ReservedClientIds } from '../mqtt/reserved-client-ids.js'
import { MqttSubscribers } from '../presence/mqtt-subscribers.js'
import { createApp } from '../server/app.js'
import type { CertificateFiles } from '../server/certificate.js'
import { CertificateSet } from '../server/certificate-set.js'
import { descriptorLimit, socketsWithin } from '../server/descriptors.js'
import { registerHealth } from '../server/health.js'
import { compileHttpsLocation, registerHttpsRedirect } from '../server/https-redirect.js'
import { formatUrl, type Listener, type ListenOptions } from '../server/listener.js'
import { type MqttListenerOptions, startMqttListener } from '../server/mqtt-listener.js'
import { listPageDirectories, registerEndpointHints, registerPages } from '../server/pages.js'
import { PipelinedRequests } from '../server/pipelined-requests.js'
import { StreamQueue } from '../server/stream-queue.js'
import { registerTickets } from '../server/tickets.js'
import { UpgradeRouter } from '../server/upgrade.js'
import { createUpgradeIdentity } from '../server/upgrade-identity.js'
import { startHttp, startHttps } from '../server/web-servers.js'
import { MqttEndpoint } from '../tunnel/mqtt-endpoint.js'
import type { TunnelOptions } from '../tunnel/tunnel.js'
import { Tunnels } from '../tunnel/tunnels.js'
import { WebSocketEndpoint } from '../tunnel/websocket-endpoint.js'
import { Brokers, embeddedHooks } from './brokers.js'
import type { PushSide, PushSideOptions, SocketEndpoint } from './push.js'

/** A running gateway. */
export interface Gateway {
  /** Every URL that a person can open or connect to. */
  readonly urls: readonly string[]
  /** How many clients are connected through it. */
  readonly connections: number
  /** Reads certificates, passwords and keys again; what is wrong with one is logged, and the old one stays. */
  reload(): Promise<void>
  /**
   * Stops accepting, tells the open connections, closes the brokers. Idempotent.
   *
   * @param grace milliseconds after which what is still open is cut off
   */
  close(grace: number): Promise<void>
}

/** Where a gateway runs. */
export interface GatewayOptions {
  /** Relative paths of the configuration begin here, and the development certificate is made here. */
  readonly cwd?: string
  /** The configuration file, which is never served. */
  readonly file?: string | undefined
}

/** Parts of the grace time: for the connections, and for answers that are on their way; the rest is the store's. */
const connectionsPart = 0.8
const answersPart = 0.1
/** The same for the answers in milliseconds, however long the grace time is. */
const longestAnswer = 1000

/** More sockets than connections: requests for pages, and those that are about to be refused with a sentence. */
const socketsPerConnection = 2

/**
 * The composition root: makes every part, hands each what it needs, and takes all of it down again.
 *
 * @throws {StartError} when an address cannot be bound, or a file or the data directory cannot be used; whatever was
 *   started by then is closed
 */
export async function startGateway(config: Config, log: Logger, options: GatewayOptions = {}): Promise<Gateway> {
  const opened = new Opened(log)
  try {
    return await assemble(config, log, options, opened)
  } catch (error) {
    await opened.close()
    throw error
  }
}

async function assemble(
  config: Config,
  log: Logger,
  { cwd = process.cwd(), file }: GatewayOptions,
  opened: Opened,
): Promise<Gateway> {
  const metrics = opened.add(createMetrics())
  const access = opened.add(await openAccess(config, cwd, log))
  const users = new UserLimits(config.limits.connectionsPerUser)
  const mqttListeners = new MqttSubscribers()
  const slices = opened.add(
    new SliceMonitor({ onSlow: slice => log.debug(slice, 'the event loop was busy with one thing for long') }),
  )
  metrics.watchSlices(() => slices.figures)
  const slicer = new TimeSlicer(undefined, undefined, slices)
  const reservedClientIds = new ReservedClientIds()
  const anonymousPublishes = isForLoopback(config) ? undefined : anonymousPublishesOf(config.limits)
  const brokerParts = { access, users, metrics, mqttListeners, slicer, slices, reservedClientIds, anonymousPublishes }
  const hooks = embeddedHooks(config, brokerParts)
  const brokers = opened.add(new Brokers(config, cwd, log, hooks))
  const tunnels = new Tunnels(metrics, config.limits.bytesPerSecond)
  metrics.watchBuffers(() => tunnels.bufferedBytes)
  const limits = new ConnectionLimits(config.limits)
  const resolveClient = compileClientResolver(config.trustedProxies)
  const servesHost = compileHosts({
    names: config.hosts,
    tcp: isWebOnLoopback(config) ? 'loopback' : 'any',
    unix: isForLoopback(config) ? 'loopback' : 'any',
  })
  const nextId = connectionIds()

  const routes = await Promise.all(
    config.tunnels.map(async tunnel => {
      const broker = await brokers.get(tunnel.broker ?? config.broker)
      return upgradeRoute(tunnel, broker, tunnelOptions(config, tunnel, reservedClientIds), config, access, tunnels)
    }),
  )
  const mqttBroker = config.mqtt.port === 'off' ? undefined : await brokers.get(config.broker)
  const gate = apiGate(config, access, { resolveClient, connections: limits, users })
  const untaken = new UnreadResponses({ log, metrics })
  const parts = { brokers, mqttListeners, reservedClientIds, anonymousPublishes, slices }
  const pushParts = { ...parts, gate, resolveClient, untaken, log, metrics }
  const push = await openPushSide(config, cwd, pushParts, opened)
  if (push) routes.push(...push.sockets.map(socket => socketRoute(socket, gate, config, access)))
  const { urlLength } = config.limits
  const site = new SiteRules({ allow: config.limits.allow, deny: config.deny })
  let httpsPort: number | undefined
  const httpsLocation = config.http.redirect ? compileHttpsLocation(() => httpsPort) : undefined
  const screens = { site, httpsLocation, servesHost, resolveClient, limits, users, urlLength }
  const seesDetails = compileDetailReaders(config.metrics.allow)
  const router = new UpgradeRouter({ routes, ...screens, seesDetails, nextId, log, metrics })

  let shuttingDown = false
  const app = opened.add(
    createApp({ site, servesHost, resolveClient, seesDetails, limits: config.limits, log, metrics }),
  )
  if (httpsLocation) registerHttpsRedirect(app, httpsLocation, resolveClient)
  registerEndpointHints(app, path => router.matches(path), {
    refusalOf: request => router.refusalOf(request),
    setOriginHeaders: (request, reply) => gate.setOriginHeaders(request, reply),
    noPush: push ? undefined : { sentence: pushIsOff, isAt: path => isPushPath(path, config) },
  })
  if (!push && config.push !== 'off') log.info(pushIsOff)
  registerHealth(app, {
    brokers: brokers.probed,
    pushFailure: push && (() => push.failure),
    isShuttingDown: () => shuttingDown,
    registry: metrics.registry,
    seesDetails,
    resolveClient,
    log,
  })
  const { authenticator, tickets } = access
  if (authenticator) {
    const allowsOrigin: OriginPolicy = (...from) => routes.some(route => route.allowsOrigin(...from))
    const count = (client: Client): void => gate.spend(client, 1)
    registerTickets(app, { authenticator, tickets, places: config.access ?? {}, allowsOrigin, resolveClient, count })
  }
  const directory = config.public === undefined ? undefined : resolve(cwd, config.public)
  push?.register(app, config.public === 'off' ? new Set() : await listPageDirectories(directory))
  if (config.public !== 'off') {
    const { index } = config
    const ownFiles = listOwnFiles(config, file, cwd)
    await registerPages(app, { directory, index, site, ownFiles, resolveClient, log })
  }
  await app.ready()

  const listeners: Listener[] = []
  const urls: string[] = []
  const listening = (scheme: 'http' | 'https' | 'mqtt', listener: Listener): void => {
    listeners.push(opened.add(listener))
    urls.push(...listener.addresses.map(address => formatUrl(scheme, address)))
    if (scheme === 'mqtt') return
    const webSocket = listener.addresses.map(address => formatUrl(scheme === 'https' ? 'wss' : 'ws', address))
    const paths = config.tunnels.flatMap(({ path, pathPrefix }) => path ?? pathPrefix ?? [])
    urls.push(...webSocket.flatMap(base => (base.startsWith('unix:') ? [] : paths.map(path => base + path))))
  }
  const maxConnections = socketsPerConnection * config.limits.connections
  const onUpgrade: UpgradeRouter['handle'] = (request, socket, head) => router.handle(request, socket, head)
  const perAddress = socketsPerConnection * config.limits.connectionsPerAddress
  const sockets = new SocketLimits({ perAddress, max: maxSockets(config, log), trustedProxies: config.trustedProxies })
  const requests = { untaken, pipelined: new PipelinedRequests({ log, metrics }), streams: new StreamQueue() }
  const web = { app, onUpgrade, limits: config.limits, maxConnections, sockets, ...requests, slices, log, metrics }
  const { http, https, mqtt } = config
  for (const port of portsOf(http.port)) {
    listening('http', await startHttp({ ...web, ...whereOf(http, config), port }))
  }
  const httpsPorts = portsOf(https.port)
  const certificates =
    httpsPorts.length > 0 ? opened.add(await startCertificates(config, cwd, log, metrics)) : undefined
  for (const port of httpsPorts) {
    if (!certificates) break
    const listener = await startHttps({ ...web, certificates, ...whereOf(https, config), port })
    httpsPort ??= listener.addresses.flatMap(address => ('port' in address ? address.port : []))[0]
    listening('https', listener)
  }
  if (mqtt.port !== 'off' && mqttBroker) {
    const options = tunnelOptions(config, { inspectConnect: true, pingInterval: 'off' }, reservedClientIds)
    const endpoint = new MqttEndpoint(mqttBroker, options, tunnels)
    const accept: MqttListenerOptions['accept'] = (socket, peer, child) => endpoint.accept(socket, peer, child)
    const where = { ...whereOf(mqtt, config), port: mqtt.port }
    listening(
      'mqtt',
      await startMqttListener({ ...where, accept, site, limits, nextId, maxConnections, sockets, log, metrics }),
    )
  }

  let closing: Promise<void> | undefined
  const close = async (grace: number): Promise<void> => {
    shuttingDown = true
    router.shutDown()
    push?.endStreams()
    const closed = listeners.map(listener => listener.close())
    await Promise.all([tunnels.close(grace * connectionsPart), push?.endSockets(grace * connectionsPart)])
    // What is left are answers on their way, and connections that never got as far as a request.
    const overdue = setTimeout(
      () => {
        for (const listener of listeners) listener.destroyConnections()
      },
      Math.min(longestAnswer, grace * answersPart),
    )
    await Promise.all(closed)
    clearTimeout(overdue)
    await opened.close()
  }
  return {
    urls,
    get connections() {
      return tunnels.size
    },
    reload: async () => {
      await Promise.all([certificates?.reload(), access.reload()])
    },
    close: grace => {
      closing ??= close(grace)
      return closing
    },
  }
}

const pushIsOff =
  'Nothing is pushed here: push is off, or it stands before another broker and push.topics does not say what of it is pushed'

/** Whether clients look for push at a path: the HTTP API, and the endpoints for clients of other systems. */
function isPushPath(path: string, { compat }: Config): boolean {
  const prefixes = [
    '/v1',
    ...[compat.pere, compat.rrr, compat.couchdb].flatMap(own => (own === 'off' ? [] : own.prefix)),
  ]
  return prefixes.some(prefix => path === prefix || path.startsWith(`${prefix}/`))
}

/** What was opened so far, to be closed in the opposite order. */
class Opened {
  readonly #parts: { close(): unknown }[] = []
  readonly #log: Logger

  constructor(log: Logger) {
    this.#log = log
  }

  add<T extends { close(): unknown }>(part: T): T {
    this.#parts.push(part)
    return part
  }

  async close(): Promise<void> {
    for (const part of this.#parts.splice(0).reverse()) {
      // One that fails to close must not keep the others open.
      await Promise.resolve(part.close()).catch(error => this.#log.error({ err: error }, 'a part did not close'))
    }
  }
}

/** Clients' sockets that the file descriptors of the process allow. */
function maxSockets({ broker, tunnels, limits: { connections } }: Config, log: Logger): number {
  const isEmbedded = [broker, ...tunnels.map(tunnel => tunnel.broker ?? broker)].every(one => one === 'embedded')
  const max = socketsWithin(descriptorLimit(), isEmbedded ? 1 : 2)
  if (max < connections) {
    log.warn({ sockets: max, connections }, 'The limit of open files (ulimit -n) is below limits.connections')
  }
  return max
}

/** What every request to the API passes. */
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
    places: config.access ?? {},
    allowsOrigin: compileOrigins(origins),
    allowsCredentials:
      addedByBrowsers(config.access).length > 0 ? compileOrigins(origins.filter(isOfNamedSites)) : undefined,
    requests: perSecond === 'off' ? undefined : new RateLimits({ perSecond, burst }),
  })
}

/** Where nothing says who may connect, the gateway is not to be reached from elsewhere at all (see config/checks.ts). */
function isForLoopback({ anonymous, access }: Config): boolean {
  return !anonymous && access === undefined
}

/** Loaded where something is pushed: a plain tunnel has no part of it. */
async function openPushSide(
  config: Config,
  cwd: string,
  {
    brokers,
    ...parts
  }: { brokers: Brokers } & Pick<
    PushSideOptions,
    | 'mqttListeners'
    | 'reservedClientIds'
    | 'anonymousPublishes'
    | 'slices'
    | 'gate'
    | 'resolveClient'
    | 'untaken'
    | 'log'
    | 'metrics'
  >,
  opened: Opened,
): Promise<PushSide | undefined> {
  const push = pushOf(config)
  if (push === undefined) return undefined
  const { openPush } = await import('./push.js')
  const data = config.data === 'none' ? undefined : resolve(cwd, config.data)
  const { limits, broker, compat } = config
  const options = {
    config: push,
    compat,
    broker: await brokers.get(broker),
    embedded: broker === 'embedded' ? await brokers.embedded() : undefined,
    packetSize: broker === 'embedded' ? config.mqtt.maxPacketSize : undefined,
    notify: config.notify,
    cwd,
    data,
    limits,
  }
  return opened.add(await openPush({ ...options, ...parts }))
}

/** Plain WebSockets, for those who may use the rest of the API. */
function socketRoute(socket: SocketEndpoint, gate: ApiGate, config: Config, { authenticator }: Access): UpgradeRoute {
  return {
    matches: path => socket.matches(path),
    isEverywhere: socket.isEverywhere,
    check: request => socket.check?.(request),
    checkQuery: (request, identity) => socket.checkQuery?.(request, identity),
    accept: upgrade => socket.accept(upgrade),
    allowsOrigin: gate.allowsOrigin,
    originsOption: 'push.origins',
    identity: authenticator && createUpgradeIdentity(authenticator, config.access ?? {}, 'admitted'),
  }
}

function upgradeRoute(
  tunnel: TunnelConfig,
  broker: Broker,
  own: TunnelOptions,
  config: Config,
  { authenticator }: Access,
  tunnels: Tunnels,
): UpgradeRoute {
  const { subprotocols, requireSubprotocol, forceSubprotocol, origins, requireOrigin, requireIdentity } = tunnel
  const options = { broker, subprotocols, requireSubprotocol, forceSubprotocol, ...own }
  const endpoint = new WebSocketEndpoint(options, tunnels)
  return {
    matches: pathMatcher(tunnel),
    allowsOrigin: compileOrigins(origins, { requireOrigin }),
    ...compileTunnelConditions(tunnel),
    identity:
      authenticator && createUpgradeIdentity(authenticator, config.access ?? {}, requireIdentity ? 'user' : 'anybody'),
    check: request => endpoint.check(request),
    accept: upgrade => endpoint.accept(upgrade),
  }
}

function tunnelOptions(
  config: Config,
  own: Pick<TunnelOptions, 'inspectConnect' | 'pingInterval'>,
  reservedClientIds: ReservedClientIds,
): TunnelOptions {
  const { connectTimeout, connectSize, closeTimeout } = config.limits
  return {
    connectTimeout,
    connectSize,
    closeTimeout,
    reservedClientIds,
    inspectConnect: own.inspectConnect,
    pingInterval: own.pingInterval,
  }
}

/** The options of a listener that do not depend on its port. */
function whereOf(
  { host, unixSocketMode }: Pick<Config['http'], 'host' | 'unixSocketMode'>,
  config: Config,
): Pick<ListenOptions, 'host' | 'unixSocketMode'> {
  return { host: host ?? config.host, unixSocketMode }
}

/**
 * Exactly one of the four is there, which the schema sees to. A prefix, suffix or pattern has to match every spelling of a path: `//a` and
 * `/b/../a` are `/a`, too.
 */
function pathMatcher({ path, pathPrefix, pathSuffix, pathPattern }: TunnelConfig): (path: string) => boolean {
  // The paths of requests are normalized, too.
  const [prefix, suffix, whole] = [pathPrefix, pathSuffix, path].map(each => each && normalizePath(each))
  if (prefix !== undefined) {
    const prefixes = spellingsOf(prefix)
    return candidate => spellingsOf(candidate).every(spelling => prefixes.some(own => spelling.startsWith(own)))
  }
  if (suffix !== undefined) {
    const suffixes = spellingsOf(suffix)
    return candidate => spellingsOf(candidate).every(spelling => suffixes.some(own => spelling.endsWith(own)))
  }
  if (pathPattern !== undefined) {
    const pattern = new RegExp(pathPattern, 'u')
    // A pattern with an escape is about the path as it is sent.
    if (pathPattern.includes('%')) return candidate => pattern.test(candidate)
    return candidate => spellingsOf(candidate).every(spelling => pattern.test(spelling))
  }
  const trimmed = whole?.replace(/\/$/, '')
  return candidate => candidate.replace(/\/$/, '') === trimmed
}

async function startCertificates(config: Config, cwd: string, log: Logger, metrics: Metrics): Promise<CertificateSet> {
  const { cert, key, chain, certificates, minVersion } = config.https
  const { ca, crl } = config.access?.clientCertificates ?? {}
  const given = cert !== undefined && key !== undefined
  const own = given
    ? { cert: resolve(cwd, cert), key: resolve(cwd, key), chain: chain && resolve(cwd, chain) }
    : await makeDevelopmentFiles(cwd, log)
  const clients = ca === undefined ? undefined : { ca: resolve(cwd, ca), crl: crl && resolve(cwd, crl) }
  const named = certificates.map(({ hosts, ...files }) => ({
    hosts,
    files: {
      cert: resolve(cwd, files.cert),
      key: resolve(cwd, files.key),
      chain: files.chain && resolve(cwd, files.chain),
      clients,
    },
  }))
  return CertificateSet.start({ files: { ...own, clients }, named, minVersion, log, metrics })
}

/** Loaded where it is wanted: the library that signs certificates is the largest of all. */
async function makeDevelopmentFiles(cwd: string, log: Logger): Promise<CertificateFiles> {
  const { developmentCertificate } = await import('../server/development-certificate.js')
  return developmentCertificate({ directory: resolve(cwd, developmentCertificates), log })
}

/** Short names for connections in the log, unique for as long as the process runs. */
function connectionIds(): () => string {
  let last = 0
  return () => (++last).toString(36)
}
