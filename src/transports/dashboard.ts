import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { errorSentences } from '../base/errors.js'
import { version } from '../base/version.js'
import type { ApiGate } from '../http/api-gate.js'
import { DashboardFeed, type DashboardFeedOptions, snapshotInterval } from './dashboard-feed.js'
import type { Operation } from './operation.js'
import { eventsHeaders, firstEvent } from './sse/stream-format.js'
import { beginResponse, streamWriterOf } from './stream-writer.js'

const url = '/v1/dashboard/events'

/** `GET /v1/dashboard/events` */
export const dashboardOperations: readonly Operation[] = [
  {
    method: 'get',
    path: url,
    summary:
      'An event stream of what the gateway does, for administrators: the events welcome, then snapshot and topics every 2 s, and end.',
    responses: {
      200: { description: 'The stream, until the gateway or the client closes it', type: 'text/event-stream' },
      401: { description: 'Only for users' },
      403: { description: 'Only for administrators' },
      429: { description: 'Too many open dashboards of the user or network' },
      503: { description: 'Too many open dashboards' },
    },
  },
]

/** What a dashboard shows beside its figures. */
export interface DashboardFacts {
  /** Limit of connections. */
  readonly maxConnections: number
  /** Limit of the events in the journal; `undefined` without push. */
  readonly maxEvents: number | undefined
}

export interface DashboardOptions extends DashboardFeedOptions {
  /** For pages of the same origin only. */
  readonly gate: ApiGate
  /** Whether only users are asked for: 401 instead of 403 without credentials. */
  readonly requiresUser: boolean
  readonly facts: DashboardFacts
}

/** Adds `GET /v1/dashboard/events`. */
export function registerDashboard(app: FastifyInstance, options: DashboardOptions): void {
  const feed = new DashboardFeed(options)
  app.get(url, (request, reply) => openStream(request, reply, feed, options))
  options.gate.registerOtherMethods(app, { url, allowed: ['GET', 'HEAD'], headers: 'authorization, cache-control' })
}

async function openStream(
  request: FastifyRequest,
  reply: FastifyReply,
  feed: DashboardFeed,
  { gate, requireAdmin, requiresUser, topics, facts }: DashboardOptions,
): Promise<FastifyReply> {
  const caller = await gate.admit(request, reply, { requiresUser })
  requireAdmin(caller.client, caller.identity)
  // The client may have left during authentication.
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginResponse(reply, eventsHeaders).end()
    return reply
  }
  const release = feed.hold(caller)
  try {
    const { body, peer, begin } = streamWriterOf(request, reply, 2 * snapshotInterval)
    feed.add(caller, { body, peer }, release)
    const { maxConnections, maxEvents } = facts
    const welcome = {
      ...{ version, interval: snapshotInterval / 1000, push: topics !== undefined, maxConnections, maxEvents },
      reasons: errorSentences,
    }
    begin(eventsHeaders, firstEvent('welcome', JSON.stringify(welcome)))
  } catch (error) {
    release()
    throw error
  }
  return reply
}
