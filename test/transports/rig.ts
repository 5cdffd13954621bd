import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { type Access, openAccess } from '../../src/access/access.js'
import { compileClientResolver } from '../../src/access/client-address.js'
import { ConnectionLimits } from '../../src/access/limits.js'
import { compileOrigins } from '../../src/access/origins.js'
import { RateLimits } from '../../src/access/rate-limits.js'
import { UserLimits } from '../../src/access/user-limits.js'
import { createMetrics } from '../../src/base/metrics.js'
import { loadConfig } from '../../src/config/load.js'
import { type PushConfig, pushOf } from '../../src/config/push.js'
import type { Config, ConfigInput } from '../../src/config/schema.js'
import { ApiGate } from '../../src/http/api-gate.js'
import { BodyBudget } from '../../src/http/body-budget.js'
import { UnreadResponses } from '../../src/http/unread-responses.js'
import { FilterQuota } from '../../src/hub/filter-quota.js'
import { type Hub, openHub } from '../../src/hub/hub.js'
import type { Event } from '../../src/journal/event.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import type { Message } from '../../src/mqtt/message.js'
import type { Listener, Presence, PresenceHandle } from '../../src/presence/presence.js'
import type { Receipts } from '../../src/receipts/receipts.js'
import { createApp } from '../../src/server/app.js'
import { PipelinedRequests } from '../../src/server/pipelined-requests.js'
import { StreamQueue } from '../../src/server/stream-queue.js'
import { startHttp, startHttps, type WebServerOptions } from '../../src/server/web-servers.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import { LiveConnections } from '../../src/transports/live-connections.js'
import type { Push, TransportContext } from '../../src/transports/transport-context.js'
import { WorkQueue } from '../../src/transports/work-queue.js'
import { message } from '../contracts/journal.js'
import { portOf, recordingLog, writeCertificate } from '../server/rig.js'

/** Somebody who listens, or did. */
export interface Attended extends Listener {
  /** How often they have shown a sign of life. */
  readonly signs: number
  readonly left: boolean
}

/** Writes down who comes and goes, and what they say. */
class AttendanceList implements Presence {
  readonly all: (Attended & { topics: readonly string[]; signs: number; left: boolean })[] = []

  enter(listener: Listener): PresenceHandle {
    const attended = { ...listener, signs: 0, left: false }
    this.all.push(attended)
    return {
      seen: () => {
        attended.signs++
      },
      add: topics => {
        attended.topics = [...attended.topics, ...topics]
      },
      remove: topics => {
        attended.topics = attended.topics.filter(topic => !topics.includes(topic))
      },
      change: topics => {
        attended.topics = topics
      },
      leave: () => {
        attended.left = true
      },
    }
  }

  at(): { count: number; listeners: [] } {
    return { count: 0, listeners: [] }
  }

  devicesAt(): [] {
    return []
  }

  counts(): { count: number; topics: Map<string, number> } {
    return { count: 0, topics: new Map() }
  }

  close(): void {}
}

/** Where nobody asks for receipts. */
export const noReceipts: Receipts = {
  outstanding: { devices: 0, events: 0 },
  acknowledged: async () => false,
  record: async () => undefined,
  reserve: () => ({ confirm: async () => {}, cancel: () => {}, acknowledged: () => {} }),
  report: async () => undefined,
  topicOf: async () => undefined,
  close: async () => {},
}

export interface RigOptions {
  /** Adds the routes that are tested. */
  readonly register: (app: FastifyInstance, options: TransportContext) => unknown
  /** As a person writes it; anonymous and open to all where it says nothing else. */
  readonly config?: ConfigInput
  /** Over what the configuration says; times in milliseconds. */
  readonly push?: Partial<PushConfig>
  /** Instead of parts that only write down what they are asked. */
  readonly parts?: Partial<Pick<Push, 'publisher' | 'receipts' | 'presence' | 'filterQuota'>>
  /** Bounds of what the hub keeps in memory. */
  readonly recent?: { readonly maxEvents: number; readonly maxBytes: number }
  /** How many events the journal keeps. */
  readonly maxEvents?: number
  /** Takes handshakes, where there are sockets. */
  readonly onUpgrade?: (options: TransportContext) => WebServerOptions['onUpgrade']
}

/** A gateway's push side on ports of loopback, on a journal in memory; what is published goes straight into it. */
export interface Rig {
  /** `http://127.0.0.1:<port>` */
  readonly url: string
  /** The same over TLS, HTTP/2 and HTTP/1.1, with a certificate signed by itself. */
  readonly secureUrl: string
  readonly port: number
  readonly options: TransportContext
  readonly journal: MemoryJournal
  readonly hub: Hub
  readonly access: Access
  readonly limits: ConnectionLimits
  readonly attendances: readonly Attended[]
  readonly log: ReturnType<typeof recordingLog>
  publish(topic: string, payload?: string | Buffer, more?: Partial<Message>): Promise<Event>
  /** A connection of HTTP/2; destroyed with the rig. */
  http2(): ClientHttp2Session
  /** A bare TCP connection; destroyed with the rig. */
  tcp(): Socket
  /** Shuts down as a gateway does. Idempotent. */
  close(): Promise<void>
}

/** Starts a rig. Close it when the test is over. */
export async function startRig(options: RigOptions): Promise<Rig> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-transports-'))
  const { config, cwd } = await configOf(options.config, directory)
  const log = recordingLog()
  const metrics = createMetrics()
  const state = new MemoryState()
  const access = await openAccess(config, cwd, log.log, state)
  const resolveClient = compileClientResolver(config.trustedProxies)
  const limits = new ConnectionLimits(config.limits)
  const push = await openPush(config, options, log.log)
  const { requestsPerSecond, requestsBurst } = config.limits
  const gate = new ApiGate({
    authenticator: access.authenticator,
    rules: access.rules,
    credentials: config.access ?? {},
    allowsOrigin: compileOrigins(push.config.origins),
    resolveClient,
    ...(requestsPerSecond !== 'off' && {
      requests: new RateLimits({ perSecond: requestsPerSecond, burst: requestsBurst }),
    }),
    connections: limits,
    users: new UserLimits(config.limits.connectionsPerUser),
  })
  const connections = new LiveConnections()
  const { bodySize: limit, bodyTimeout: timeout, jsonValues } = config.limits
  const bodies = { limit, budget: new BodyBudget(16 * limit), timeout, jsonValues }
  const queue = new WorkQueue()
  const unreadResponses = new UnreadResponses({ log: log.log, metrics })
  const transport: TransportContext = {
    push,
    gate,
    connections,
    state,
    bodies,
    queue,
    unreadResponses,
    log: log.log,
    metrics,
  }

  const app = createApp({ resolveClient, limits: config.limits, log: log.log, metrics })
  await options.register(app, transport)
  await app.ready()
  const onUpgrade = options.onUpgrade?.(transport) ?? ((_request, socket) => void socket.destroy())
  const where = { maxConnections: 100_000, host: '127.0.0.1', port: 0 }
  const pipelined = new PipelinedRequests({ log: log.log, metrics })
  const requests = { unreadResponses, pipelined, streams: new StreamQueue() }
  const web = { app, onUpgrade, limits: config.limits, ...where, ...requests, log: log.log, metrics }
  const http = await startHttp(web)
  const { pem } = await writeCertificate(directory)
  const https = await startHttps({ ...web, certificates: { secureContext: pem, serve: () => {} } })

  const port = portOf(http)
  const secureUrl = `https://127.0.0.1:${portOf(https)}`
  const clients: { destroy(): unknown }[] = []
  const close = async (): Promise<void> => {
    connections.close()
    const closed = Promise.all([http.close(), https.close()])
    for (const client of clients) client.destroy()
    http.destroyConnections()
    https.destroyConnections()
    await closed
    push.hub.close()
    await app.close()
    await push.journal.close()
    await access.close()
    metrics.close()
    await rm(directory, { recursive: true, force: true })
  }
  let closing: Promise<void> | undefined
  return {
    url: `http://127.0.0.1:${port}`,
    secureUrl,
    port,
    options: transport,
    journal: push.journal,
    hub: push.hub,
    access,
    limits,
    attendances: push.presence instanceof AttendanceList ? push.presence.all : [],
    log,
    publish: (topic, payload, more) => push.journal.append(message(topic, payload, more)),
    http2: () => {
      const session = connectHttp2(secureUrl, { rejectUnauthorized: false })
      session.on('error', () => {})
      clients.push(session)
      return session
    },
    tcp: () => {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      clients.push(socket)
      return socket
    },
    close: () => {
      closing ??= close()
      return closing
    },
  }
}

async function configOf(input: ConfigInput = {}, cwd: string): Promise<{ config: Config; cwd: string }> {
  const limits = { connectionsPerAddress: 100_000, requestsPerSecond: 'off' as const, ...input.limits }
  // JSON is YAML.
  await writeFile(join(cwd, 'mqway.yaml'), JSON.stringify({ data: 'none', ...input, limits }))
  return { config: loadConfig({ argv: [], env: {}, cwd }).config, cwd }
}

async function openPush(config: Config, options: RigOptions, log: TransportContext['log']) {
  const ofConfig = pushOf(config)
  if (!ofConfig) throw new Error('the configuration has no push')
  const settings = { ...ofConfig, ...options.push }
  const bounds = { ...settings, maxWaiting: 100_000, maxWaitingBytes: 2 ** 30 }
  const journal = new MemoryJournal({ bounds: { ...bounds, maxEvents: options.maxEvents ?? 1_000_000 }, log })
  const recent = options.recent ?? { maxEvents: 1000, maxBytes: 2 ** 24 }
  const hub = await openHub({ journal, bounds: { ...settings, recent }, log })
  const presence: Presence = new AttendanceList()
  const publisher = { connected: true, publish: (sent: Message) => journal.append(sent) }
  const filterQuota = new FilterQuota(settings.maxSubscriptionsBytes)
  return { journal, hub, presence, filterQuota, receipts: noReceipts, publisher, ...options.parts, config: settings }
}
