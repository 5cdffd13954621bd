import type { FastifyInstance, FastifyRequest } from 'fastify'
import { registerBufferedBodyRoutes } from '../transports/buffered-body-routes.js'
import { memoizeCursor } from '../transports/event-json.js'
import { Heartbeats } from '../transports/heartbeats.js'
import { controlEvents } from '../transports/sse/sse-encoding.js'
import { listConnections, listDevices, listEvents } from './pere/admin.js'
import { OpenFeeds, type PereContext, type PereOptions, Publishers } from './pere/context.js'
import { openFeed } from './pere/feed.js'
import { takeFeedback } from './pere/feedback.js'
import { encodePlace, heartbeat } from './pere/frames.js'
import { pushEvent } from './pere/push.js'
import { allowedHeaders, channelReader } from './pere/requests.js'

/** In milliseconds: a client gives up a feed after 60 s of silence, and heartbeats may be a fifth late. */
const maxHeartbeatInterval = 30_000

/** Adds the URLs of PERE, whose channels are topics: push, feed, feedback and admin. */
export function registerPere(app: FastifyInstance, options: PereOptions): void {
  const { gate, push, publishes, now = Date.now } = options
  const context: PereContext = {
    ...options,
    publishes,
    now,
    feeds: options.feeds ?? new OpenFeeds(),
    publishers: options.publishers ?? new Publishers(),
    channelOf: channelReader(push.config),
    heartbeats: new Heartbeats(Math.min(push.config.heartbeat, maxHeartbeatInterval)),
    cursorEvents: memoizeCursor(encodePlace),
    heartbeat,
    controlEvents: controlEvents,
  }
  const base = options.prefix.replace(/\/$/, '')
  const admitted = async (request: FastifyRequest, reply: Parameters<typeof gate.admit>[1]) => {
    const caller = await gate.admit(request, reply)
    return { caller, channel: context.channelOf(request) }
  }

  registerBufferedBodyRoutes(app, options, (scope, admittedRequest) => {
    scope.post(`${base}/push/:channel`, async (request, reply) => pushEvent(admittedRequest(request), reply, context))
    scope.post(`${base}/feedback/:channel`, async (request, reply) =>
      takeFeedback(admittedRequest(request), reply, context),
    )
  })
  app.get(`${base}/feed/:channel`, (request, reply) => openFeed(request, reply, context))
  app.get(`${base}/admin/connections`, async (request, reply) =>
    listConnections(await gate.admit(request, reply), reply, context),
  )
  app.get(`${base}/admin/events/:channel`, async (request, reply) => {
    const { caller, channel } = await admitted(request, reply)
    return listEvents(caller, channel, reply, context)
  })
  app.get(`${base}/admin/devices/:channel`, async (request, reply) => {
    const { caller, channel } = await admitted(request, reply)
    return listDevices(caller, channel, reply, context)
  })

  for (const path of ['push', 'feedback']) refuseOthers(`${base}/${path}/:channel`, ['POST'])
  for (const path of ['feed/:channel', 'admin/connections', 'admin/events/:channel', 'admin/devices/:channel']) {
    refuseOthers(`${base}/${path}`, ['GET', 'HEAD'])
  }
  function refuseOthers(url: string, allowed: string[]): void {
    gate.registerOtherMethods(app, { url, allowed, headers: allowedHeaders })
  }
}
