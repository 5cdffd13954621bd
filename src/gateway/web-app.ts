import { resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { compileAdministrators } from '../access/administrators.js'
import { compileOrigins, type OriginPolicy } from '../access/origins.js'
import { LocalClients } from '../base/client-directory.js'
import { listPrivateFiles } from '../config/private-files.js'
import type { Config } from '../config/schema.js'
import { HeaderRules } from '../http/header-rules.js'
import type { UpgradeRoute } from '../http/upgrade-route.js'
import { createApp } from '../server/app.js'
import { collectRoutes } from '../server/attached-server.js'
import { EncodedFiles } from '../server/encoded-files.js'
import { registerHealth } from '../server/health.js'
import { type HttpsLocation, registerHttpsRedirect } from '../server/https-redirect.js'
import { listPageDirectories, registerEndpointHints, registerPages } from '../server/pages.js'
import { registerTickets } from '../server/tickets.js'
import type { UpgradeRouter } from '../server/upgrade.js'
import { registerClients } from '../transports/clients.js'
import { AllClients } from '../workers/all-clients.js'
import type { CloseStack } from './close-stack.js'
import type { GatewayContext } from './context.js'
import type { PushSide } from './push.js'

export interface WebAppOptions {
  readonly push: PushSide | undefined
  readonly routes: readonly UpgradeRoute[]
  readonly router: UpgradeRouter
  readonly httpsLocation: HttpsLocation | undefined
  readonly isShuttingDown: () => boolean
  /** The configuration file, which is never served. */
  readonly file: string | undefined
}

const pushIsOff =
  'Push is off: either by the option push, or because push.topics names no topics of the broker behind this gateway'

/** The app that answers HTTP requests. */
export interface OpenedWebApp {
  readonly app: FastifyInstance
  /** Whether it has a route at a path. */
  hasRoute(path: string): boolean
}

/** Makes the app that answers HTTP requests, with all routes: health, tickets, the push API and the pages. */
export async function openWebApp(
  context: GatewayContext,
  options: WebAppOptions,
  opened: CloseStack,
): Promise<OpenedWebApp> {
  const { config, cwd, site, servesHost, resolveClient, seesDetails, gate, brokers, log, metrics, group } = context
  const { push, router, httpsLocation, isShuttingDown } = options
  const headerRules = new HeaderRules(config.headers)
  const app = opened.add(
    createApp({ site, servesHost, resolveClient, seesDetails, headerRules, limits: config.limits, log, metrics }),
  )
  const hasRoute = collectRoutes(app)
  if (httpsLocation) registerHttpsRedirect(app, httpsLocation, resolveClient)
  registerEndpointHints(app, path => router.matches(path), {
    refusalOf: request => router.refusalOf(request),
    setOriginHeaders: (request, reply) => gate.setOriginHeaders(request, reply),
    noPush: push ? undefined : { sentence: pushIsOff, isAt: path => isPushPath(path, config) },
  })
  if (!push && config.push !== 'off') log.info(pushIsOff)
  registerHealth(app, {
    ...{ isShuttingDown, seesDetails, resolveClient, log },
    brokers: brokers.probed,
    pushFailure: push && (() => push.failure),
    journalFailure: push && (() => push.journalFailure),
    readMetrics: () => group?.allMetrics() ?? metrics.registry.metrics(),
  })
  registerTicketRoute(app, context, options.routes)
  registerClientsRoute(app, context)
  const directory = config.public === undefined ? undefined : resolve(cwd, config.public)
  push?.register(app, config.public === 'off' ? new Set() : await listPageDirectories(directory))
  if (config.public !== 'off') {
    const { index } = config
    const encoded = config.compression === 'off' ? undefined : new EncodedFiles(config.compression, context.compressor)
    const ownFiles = listPrivateFiles(config, options.file, cwd)
    await registerPages(app, { directory, index, headerRules, encoded, site, ownFiles, resolveClient, log })
  }
  await app.ready()
  return { app, hasRoute }
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

/** Only for pages of the gateway itself, whatever `push.origins` allows. */
function registerClientsRoute(app: FastifyInstance, context: GatewayContext): void {
  const { config, access, brokers, group, log } = context
  const local = new LocalClients(context.clients, log)
  const gate = context.gate.with({
    credentials: config.access ?? {},
    allowsOrigin: compileOrigins(['same-origin']),
    allowsCredentials: undefined,
  })
  const isOpen = config.access !== undefined || config.anonymous
  registerClients(app, {
    ...{ gate, log },
    clients: group ? new AllClients(local, group) : local,
    requireAdmin: compileAdministrators({ rules: access.rules, isOpen }),
    requiresUser: access.authenticator !== undefined,
    endSession: brokers.openEmbedded && (clientId => brokers.openEmbedded?.endSession(clientId) === true),
  })
}

/** Whether a path belongs to the push API or to a compatibility endpoint. */
function isPushPath(path: string, { compat }: Config): boolean {
  const endpoints = [compat.pere, compat.rrr, compat.couchdb]
  const prefixes = ['/v1', ...endpoints.flatMap(endpoint => (endpoint === 'off' ? [] : endpoint.prefix))]
  return prefixes.some(prefix => path === prefix || path.startsWith(`${prefix}/`))
}
