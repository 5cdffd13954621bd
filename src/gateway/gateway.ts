import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Broker } from '../broker/broker.js'
import { withoutRestart } from '../config/changes.js'
import { pushOf } from '../config/push.js'
import type { Config } from '../config/schema.js'
import type { UpgradeRoute } from '../http/upgrade-route.js'
import type { ProgramServer } from '../server/attached-server.js'
import { compileHttpsLocation } from '../server/https-redirect.js'
import type { InheritedSocket } from '../server/inherited-sockets.js'
import { UpgradeRouter } from '../server/upgrade.js'
import type { WorkerGroup } from '../workers/primary-process.js'
import { CloseStack } from './close-stack.js'
import { compileParts, configureParts, type GatewayContext, openContext } from './context.js'
import { Listeners } from './listeners.js'
import type { PushEndpoints, PushSide } from './push.js'
import { openTunnelRoutes, socketRoute } from './routes.js'
import { reviewTunnels } from './tunnel-review.js'
import { openWebApp, pushIsOff, type ServedWebApp } from './web-app.js'

export interface Gateway {
  /** Every URL that a person can open or connect to. */
  readonly urls: readonly string[]
  /** Number of connected clients. */
  readonly connections: number
  /**
   * Applies another configuration, and reads certificates, passwords and keys again; an invalid one of these is logged, and the old one stays in use. Opens the
   * access log again.
   *
   * Options that take effect with a restart keep their values (`config/changes.ts`). Connections that the other configuration does not allow have ended, or are
   * ending, when it resolves; all others stay.
   *
   * @param config valid; default: the present one
   * @throws {StartError} when a file or a broker of the configuration cannot be used; nothing has changed then
   */
  reload(config?: Config): Promise<void>
  /** Counts a reload that was refused because the configuration is invalid. */
  reloadRefused(): void
  /**
   * Stops accepting, ends the open connections with a reason, closes the brokers. Idempotent.
   *
   * @param grace milliseconds after which open connections are destroyed
   */
  close(grace: number): Promise<void>
}

export interface GatewayOptions {
  /** Relative paths of the configuration begin here, and the development certificate is made here. */
  readonly cwd?: string
  /** The configuration file, which is never served. */
  readonly file?: string | undefined
  /** What it shares with other worker processes, if it is one. */
  readonly group?: WorkerGroup | undefined
  /** Sockets of systemd, which listen at ports of the configuration already. */
  readonly inherited?: readonly InheritedSocket[]
  /** Servers of another program, on which it answers its own requests, too. */
  readonly servers?: readonly ProgramServer[]
  /** Paths that are the program's there. */
  readonly except?: readonly string[]
}

/** Fractions of the grace time: for connections, and for responses under way; the rest is for storage. */
const connectionsPart = 0.8
const responsesPart = 0.1
/** The time for responses under way in milliseconds, however long the grace time is. */
const maxResponseTime = 1000

/**
 * The composition root: makes every part, hands each what it needs, and closes them in reverse order.
 *
 * @throws {StartError} when an address cannot be bound, or a file or the data directory cannot be used; parts opened
 *   by then are closed
 */
export async function startGateway(config: Config, log: Logger, options: GatewayOptions = {}): Promise<Gateway> {
  const opened = new CloseStack(log)
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
  { cwd = process.cwd(), file, group, inherited = [], servers = [], except = [] }: GatewayOptions,
  opened: CloseStack,
): Promise<Gateway> {
  let context = await openContext(config, log, { cwd, group, isAttached: servers.length > 0 }, opened)
  const tunnelRoutes = await openTunnelRoutes(context)
  const hasMqttPort = config.mqtt.port !== 'off' || config.mqtts.port !== 'off'
  const mqttBroker = hasMqttPort ? await context.brokers.get(config.broker) : undefined
  const push = await openPushSide(context, opened)
  if (!push && config.push !== 'off') log.info(pushIsOff)
  const listeners = new Listeners(context, opened, inherited)
  let shuttingDown = false
  const isShuttingDown = (): boolean => shuttingDown
  const routing = (of: GatewayContext, tunnels: readonly UpgradeRoute[], endpoints: PushEndpoints | undefined) => ({
    ...of,
    routes: [...tunnels, ...(endpoints?.sockets ?? []).map(socket => socketRoute(socket, of))],
    httpsLocation: of.config.http.redirect ? compileHttpsLocation(() => listeners.httpsPort) : undefined,
    urlLength: of.config.limits.urlLength,
  })
  const routes = routing(context, tunnelRoutes, push?.endpoints)
  const router = new UpgradeRouter(routes)
  const fixed = { push, router, isShuttingDown, file }
  let web = await openWebApp(context, { ...fixed, ...routes, endpoints: push?.endpoints })
  opened.add({ close: () => web.close() })
  const served: ServedWebApp = {
    app: { routing: (request, response) => web.app.routing(request, response) },
    hasRoute: path => web.hasRoute(path),
  }

  await listeners.startWeb(served.app, router)
  if (mqttBroker) await listeners.startMqtt(mqttBroker)
  listeners.startOrders()
  // Last: nothing that may fail comes after it.
  for (const server of servers) listeners.attach(server, { ...served, router, except })

  const { tunnels, access, brokers, metrics, slicer } = context

  const closeDropped = (broker: Broker): Promise<void> => {
    const closing = new CloseStack(log)
    closing.add(broker)
    return closing.close()
  }

  /**
   * Prepares all that may fail.
   *
   * @returns puts it into effect at once
   * @throws {StartError} and what else fails; nothing has changed then
   */
  const prepare = async (next: Config): Promise<() => { close(): Promise<void> }> => {
    const former = context
    const prepared = new CloseStack(log)
    try {
      const nextAccess = prepared.add(await access.prepare(next))
      const other: GatewayContext = { ...former, ...compileParts(next, former) }
      const nextPush = pushOf(next)
      const endpoints = push && nextPush && push.prepare(other, nextPush)
      const nextRoutes = routing(other, await openTunnelRoutes(other), endpoints)
      const nextWeb = prepared.add(await openWebApp(other, { ...fixed, ...nextRoutes, endpoints }))
      const commitListeners = await listeners.prepare(other, prepared)
      if (shuttingDown) throw new GatewayError('shutting-down')
      // Last: its queue has one owner, so the former rules end here.
      if (!isDeepStrictEqual(former.config.notify, next.notify)) await push?.changeNotify(next.notify)
      return () => {
        const formerWeb = web
        nextAccess.commit()
        configureParts(next, other)
        endpoints?.commit()
        commitListeners()
        router.configure(nextRoutes)
        web = nextWeb
        context = other
        return {
          close: async () => {
            formerWeb.endStreams(new GatewayError('configuration-changed'))
            await Promise.all([nextAccess.close(), formerWeb.close()])
          },
        }
      }
    } catch (error) {
      await prepared.close()
      for (const broker of brokers.retain(former.config)) void closeDropped(broker)
      throw error
    }
  }

  const apply = async (next: Config): Promise<void> => {
    const former = context.config
    const commit = await prepare(next)
    const replaced = new CloseStack(log)
    replaced.add(commit())
    if (next.log.level !== former.log.level) log.level = next.log.level
    for (const broker of brokers.retain(next)) void tunnels.unused(broker).then(() => closeDropped(broker))
    const topics = pushOf(next)?.topics
    if (push && topics && !isDeepStrictEqual(pushOf(former)?.topics, topics)) void push.changeTopics(topics)
    await replaced.close()
    // The configuration is in effect: a failure from here on is no refusal of it.
    await review(former).catch(error => log.error({ err: error }, 'Failed to review connections after a reload'))
  }

  /** Ends the connections that the configuration no longer allows. */
  const review = async (former: Config): Promise<void> => {
    const { authenticator } = access
    const hasOtherAccess = !isDeepStrictEqual(former.access, context.config.access)
    await Promise.all([
      tunnels.review(reviewTunnels(context), slicer),
      hasOtherAccess && brokers.openEmbedded?.review(),
      hasOtherAccess && push?.review(identity => authenticator?.refusalOf(identity)),
    ])
  }

  const reload = async (given: Config): Promise<void> => {
    const next = withoutRestart(context.config, given)
    try {
      if (!isDeepStrictEqual(next, context.config)) await apply(next)
    } catch (error) {
      metrics.reloaded('refused')
      throw error
    }
    const files = [listeners.reloadCertificates(), access.reload(), context.reopenAccessLog()]
    for (const result of await Promise.allSettled(files)) {
      if (result.status === 'rejected') log.error({ err: result.reason }, 'Failed to read a file again')
    }
    metrics.reloaded('applied')
  }
  let reloading: Promise<unknown> = Promise.resolve()

  const shutDown = async (grace: number): Promise<void> => {
    shuttingDown = true
    router.shutDown()
    push?.endStreams()
    web.endStreams(new GatewayError('shutting-down'))
    const closed = listeners.close()
    await Promise.all([tunnels.close(grace * connectionsPart), push?.endSockets(grace * connectionsPart)])
    // Responses under way remain, and connections that sent no request.
    const timer = setTimeout(() => listeners.destroyConnections(), Math.min(maxResponseTime, grace * responsesPart))
    await closed
    clearTimeout(timer)
    await reloading
    await opened.close()
  }
  let closing: Promise<void> | undefined
  return {
    get urls() {
      return listeners.urls
    },
    get connections() {
      return tunnels.size
    },
    reload: (next = context.config) => {
      const reloaded = reloading.then(() => reload(next))
      reloading = reloaded.catch(() => {})
      return reloaded
    },
    reloadRefused: () => metrics.reloaded('refused'),
    close: grace => {
      closing ??= shutDown(grace)
      return closing
    },
  }
}

/** Imported on demand: a plain tunnel has no push side. */
async function openPushSide(context: GatewayContext, opened: CloseStack): Promise<PushSide | undefined> {
  const { config, cwd, brokers } = context
  const push = pushOf(config)
  if (push === undefined) return undefined
  const { openPush } = await import('./push.js')
  const { limits, broker, compat, notify } = config
  return opened.add(
    await openPush({
      ...context,
      ...{ config: push, compat, notify, limits },
      broker: await brokers.get(broker),
      embedded: broker === 'embedded' ? await brokers.embedded() : undefined,
      packetSize: broker === 'embedded' ? config.embedded.maxPacketSize : undefined,
      data: config.data === 'none' ? undefined : resolve(cwd, config.data),
    }),
  )
}
