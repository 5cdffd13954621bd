import { resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { compileAdministrators } from '../access/administrators.js'
import { compileOrigins, type OriginPolicy } from '../access/origins.js'
import { LocalClients } from '../base/client-directory.js'
import type { GatewayError } from '../base/errors.js'
import { listPrivateFiles } from '../config/private-files.js'
import { pushOf } from '../config/push.js'
import type { Config } from '../config/schema.js'
import { HeaderRules } from '../http/header-rules.js'
import type { UpgradeRoute } from '../http/upgrade-route.js'
import { createApp } from '../server/app.js'
import { collectRoutes } from '../server/attached-server.js'
import { EncodedFiles } from '../server/encoded-files.js'
import { compileHealthCheck, type Health, registerHealth } from '../server/health.js'
import { type HttpsLocation, registerHttpsRedirect } from '../server/https-redirect.js'
import { listPageDirectories, registerEndpointHints, registerPages } from '../server/pages.js'
import { registerTickets } from '../server/tickets.js'
import type { UpgradeRouter } from '../server/upgrade.js'
import type { WebApp } from '../server/web-servers.js'
import { registerClients } from '../transports/clients.js'
import { registerDashboard } from '../transports/dashboard.js'
import { LiveConnections } from '../transports/live-connections.js'
import { AllClients } from '../workers/all-clients.js'
import { prometheusText } from '../workers/worker-metrics.js'
import type { GatewayContext } from './context.js'
import type { PushEndpoints, PushSide } from './push.js'

export interface WebAppOptions {
  readonly push: PushSide | undefined
  /** Of push. */
  readonly endpoints: PushEndpoints | undefined
  readonly routes: readonly UpgradeRoute[]
  readonly router: UpgradeRouter
  readonly httpsLocation: HttpsLocation | undefined
  readonly isShuttingDown: () => boolean
  /** The configuration file, which is never served. */
  readonly file: string | undefined
}

export const pushIsOff =
  'Push is off: either by the option push, or because push.topics names no topics of the broker behind this gateway'

/** The app that answers HTTP requests. */
export interface ServedWebApp {
  readonly app: WebApp
  /** Whether it has a route at a path. */
  hasRoute(path: string): boolean
}

/** The app of one configuration. */
export interface OpenedWebApp extends ServedWebApp {
  /** Ends the streams of dashboards. */
  endStreams(reason: GatewayError): void
  /** Requests under way are still answered. */
  close(): Promise<void>
}

/** Makes the app that answers HTTP requests, with all routes: health, tickets, the push API and the pages. */
export async function openWebApp(context: GatewayContext, options: WebAppOptions): Promise<OpenedWebApp> {
  const { config, site, servesHost, resolveClient, seesDetails, log, metrics } = context
  const headerRules = new HeaderRules(config.headers)
  const app = createApp({
    site,
    servesHost,
    resolveClient,
    seesDetails,
    headerRules,
    limits: config.limits,
    log,
    metrics,
  })
  const hasRoute = collectRoutes(app)
  const dashboards = new LiveConnections()
  try {
    await registerAll(app, context, { ...options, headerRules, dashboards })
    await app.ready()
    return { app, hasRoute, endStreams: reason => dashboards.close(reason), close: () => app.close() }
  } catch (error) {
    await app.close()
    throw error
  }
}

async function registerAll(
  app: FastifyInstance,
  context: GatewayContext,
  options: WebAppOptions & { readonly headerRules: HeaderRules; readonly dashboards: LiveConnections },
): Promise<void> {
  const { config, cwd, site, resolveClient, seesDetails, gate, brokers, log, metrics, group } = context
  const { push, endpoints, router, httpsLocation, isShuttingDown, headerRules, dashboards } = options
  // With many routes, the app takes longer than other connections should wait for a reload.
  const pause = (): Promise<void> => context.slicer.next()
  await pause()
  if (httpsLocation) registerHttpsRedirect(app, httpsLocation, resolveClient)
  registerEndpointHints(app, path => router.matches(path), {
    refusalOf: request => router.refusalOf(request),
    setOriginHeaders: (request, reply) => gate.setOriginHeaders(request, reply),
    noPush: push ? undefined : { sentence: pushIsOff, isAt: path => isPushPath(path, config) },
  })
  const checkHealth = compileHealthCheck({
    brokers: brokers.probedOf(config),
    pushFailure: push && (() => push.failure),
    journalFailure: push && (() => push.journalFailure),
    log,
  })
  registerHealth(app, {
    ...{ checkHealth, isShuttingDown, seesDetails, resolveClient },
    readMetrics: async () => (group ? prometheusText(await group.allMetrics()) : metrics.registry.metrics()),
  })
  registerTicketRoute(app, context, options.routes)
  registerAdministration(app, context, { push, checkHealth, dashboards })
  const directory = config.public === undefined ? undefined : resolve(cwd, config.public)
  await pause()
  endpoints?.register(app, config.public === 'off' ? new Set() : await listPageDirectories(directory))
  await pause()
  if (config.public !== 'off') {
    const { index } = config
    const encoded = config.compression === 'off' ? undefined : new EncodedFiles(config.compression, context.compressor)
    const ownFiles = listPrivateFiles(config, options.file, cwd)
    await registerPages(app, { directory, index, headerRules, encoded, site, ownFiles, resolveClient, log })
  }
}

/** Tickets are for pages that may open at least one of the WebSockets. */
function registerTicketRoute(
  app: FastifyInstance,
  { config, access: { authenticator, tickets }, gate }: GatewayContext,
  routes: readonly UpgradeRoute[],
): void {
  if (!authenticator) return
  const allowsOrigin: OriginPolicy = (...from) => routes.some(route => route.allowsOrigin(...from))
  registerTickets(app, { gate, tickets, credentials: config.access ?? {}, allowsOrigin })
}

interface Administration {
  readonly push: PushSide | undefined
  readonly checkHealth: () => Promise<Health>
  readonly dashboards: LiveConnections
}

/** Only for pages of the gateway itself, whatever `push.origins` allows. */
function registerAdministration(
  app: FastifyInstance,
  context: GatewayContext,
  { push, checkHealth, dashboards }: Administration,
): void {
  const { config, access, brokers, group, log, metrics } = context
  const local = new LocalClients(context.clients, log)
  const gate = context.gate.with({
    credentials: config.access ?? {},
    allowsOrigin: compileOrigins(['same-origin']),
    allowsCredentials: undefined,
  })
  const isOpen = config.access !== undefined || config.anonymous
  const shared = {
    ...{ gate, log },
    requireAdmin: compileAdministrators({ rules: access.rules, isOpen }),
    requiresUser: access.authenticator !== undefined,
  }
  registerClients(app, {
    ...shared,
    clients: group ? new AllClients(local, group) : local,
    endSession: brokers.openEmbedded && (clientId => brokers.openEmbedded?.endSession(clientId) === true),
  })
  registerDashboard(app, {
    ...{ ...shared, metrics, checkHealth, connections: dashboards },
    readMetrics: () => group?.allMetrics() ?? metrics.registry.getMetricsAsJSON(),
    topics: push?.topics,
    facts: { maxConnections: config.limits.connections, maxEvents: push && pushOf(config)?.maxEvents },
  })
}

/** Whether a path belongs to the push API or to a compatibility endpoint. */
function isPushPath(path: string, { compat }: Config): boolean {
  const endpoints = [compat.pere, compat.rrr, compat.couchdb]
  const prefixes = ['/v1', ...endpoints.flatMap(endpoint => (endpoint === 'off' ? [] : endpoint.prefix))]
  return prefixes.some(prefix => path === prefix || path.startsWith(`${prefix}/`))
}
