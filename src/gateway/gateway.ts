import { resolve } from 'node:path'
import type { Logger } from '../base/log.js'
import { pushOf } from '../config/push.js'
import type { Config } from '../config/schema.js'
import type { ProgramServer } from '../server/attached-server.js'
import { compileHttpsLocation } from '../server/https-redirect.js'
import type { InheritedSocket } from '../server/inherited-sockets.js'
import { UpgradeRouter } from '../server/upgrade.js'
import type { WorkerGroup } from '../workers/primary-process.js'
import { CloseStack } from './close-stack.js'
import { type GatewayContext, openContext } from './context.js'
import { Listeners } from './listeners.js'
import type { PushSide } from './push.js'
import { openTunnelRoutes, socketRoute } from './routes.js'
import { openWebApp } from './web-app.js'

export interface Gateway {
  /** Every URL that a person can open or connect to. */
  readonly urls: readonly string[]
  /** Number of connected clients. */
  readonly connections: number
  /** Reads certificates, passwords and keys again; an invalid one is logged, and the old one stays in use. Opens the access log again. */
  reload(): Promise<void>
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
  const context = await openContext(config, log, { cwd, group, isAttached: servers.length > 0 }, opened)
  const tunnelRoutes = await openTunnelRoutes(context)
  const hasMqttPort = config.mqtt.port !== 'off' || config.mqtts.port !== 'off'
  const mqttBroker = hasMqttPort ? await context.brokers.get(config.broker) : undefined
  const push = await openPushSide(context, opened)
  const routes = [...tunnelRoutes, ...(push?.sockets ?? []).map(socket => socketRoute(socket, context))]

  const listeners = new Listeners(context, opened, inherited)
  const httpsLocation = config.http.redirect ? compileHttpsLocation(() => listeners.httpsPort) : undefined
  const router = new UpgradeRouter({ ...context, routes, httpsLocation, urlLength: config.limits.urlLength })
  let shuttingDown = false
  const isShuttingDown = (): boolean => shuttingDown
  const web = await openWebApp(context, { push, routes, router, httpsLocation, isShuttingDown, file }, opened)

  await listeners.startWeb(web.app, router)
  if (mqttBroker) await listeners.startMqtt(mqttBroker)
  listeners.startOrders()
  // Last: nothing that may fail comes after it.
  for (const server of servers) listeners.attach(server, { ...web, router, except })

  const { tunnels, access } = context
  const shutDown = async (grace: number): Promise<void> => {
    shuttingDown = true
    router.shutDown()
    push?.endStreams()
    web.endStreams()
    const closed = listeners.close()
    await Promise.all([tunnels.close(grace * connectionsPart), push?.endSockets(grace * connectionsPart)])
    // Responses under way remain, and connections that sent no request.
    const timer = setTimeout(() => listeners.destroyConnections(), Math.min(maxResponseTime, grace * responsesPart))
    await closed
    clearTimeout(timer)
    await opened.close()
  }
  let closing: Promise<void> | undefined
  return {
    urls: listeners.urls,
    get connections() {
      return tunnels.size
    },
    reload: async () => {
      await Promise.all([listeners.reloadCertificates(), access.reload(), context.reopenAccessLog()])
    },
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
