import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { QueryCache } from '../../http/query-cache.js'
import { memoizeCursor } from '../event-json.js'
import { Heartbeats } from '../heartbeats.js'
import { lastEventIdsOf, newestCursor } from '../last-event-id.js'
import type { Operation } from '../operation.js'
import { beginResponse, streamWriterOf } from '../stream-writer.js'
import { flag, maxCursorLength, subscribeFields } from '../subscribe-query.js'
import { authorizeSubscribe, deviceOf } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'
import { EventStream, type StreamContext } from './event-stream.js'
import { controlEvents, encodeCursor, streamEncoder, streamStart } from './sse-encoding.js'
import { answerPassingRefusal, asksForEventStream, commentLine, eventsHeaders } from './stream-format.js'

const url = '/v1/events'

const query = z.object({
  ...subscribeFields,
  lastEventId: subscribeFields.cursor.describe(
    'The same as cursor, and as the header Last-Event-ID: the newest counts',
  ),
  last_event_id: subscribeFields.cursor.describe('The same as lastEventId'),
  enveloped: flag(true).describe('Whether events are JSON with their topic, or the bare payload'),
})

interface EventsContext extends StreamContext {
  readonly queries: QueryCache<z.output<typeof query>>
}

/** `GET /v1/events` */
export const eventsOperations: readonly Operation[] = [
  {
    method: 'get',
    path: url,
    summary: 'An event stream for EventSource (text/event-stream): stored events, then new ones',
    query,
    headers: {
      'Last-Event-ID': 'The id of the last received event; of this and those in the query, the newest counts',
    },
    responses: {
      200: { description: 'The stream, until the gateway or the client closes it', type: 'text/event-stream' },
    },
  },
]

/** Adds `GET /v1/events`: server-sent events (HTML Living Standard §9.2). */
export function registerEvents(app: FastifyInstance, options: TransportContext): void {
  const { gate, push } = options
  const context: EventsContext = {
    ...options,
    queries: new QueryCache(query, { maxCursorLength, size: 256 }),
    heartbeats: new Heartbeats(push.config.heartbeat),
    cursorEvents: memoizeCursor(encodeCursor),
    heartbeat: Buffer.from(commentLine),
    sendsCursorWhenIdle: true,
    controlEvents: controlEvents,
  }
  app.get(url, (request, reply) => answerEvents(request, reply, context))
  gate.registerOtherMethods(app, {
    url,
    allowed: ['GET', 'HEAD'],
    headers: 'authorization, cache-control, last-event-id',
  })
}

/** Opens a stream. Clients that accept event streams get temporary errors as a stream that ends at once. */
async function answerEvents(
  request: FastifyRequest,
  reply: FastifyReply,
  context: EventsContext,
): Promise<FastifyReply> {
  try {
    return await openStream(request, reply, context)
  } catch (error) {
    if (!asksForEventStream(request)) throw error
    return answerPassingRefusal(request, reply, error, { ...context, headers: eventsHeaders })
  }
}

async function openStream(request: FastifyRequest, reply: FastifyReply, context: EventsContext): Promise<FastifyReply> {
  const { gate, push } = context
  const { heartbeat } = push.config
  const caller = await gate.admit(request, reply)
  const { topic: filters, enveloped, json, last, ...given } = context.queries.read(request)
  authorizeSubscribe(caller.permissions, filters)
  // The client may have left during authentication.
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginResponse(reply, eventsHeaders).end()
    return reply
  }
  const lastEventIds = lastEventIdsOf(request, maxCursorLength)
  const cursor = newestCursor([...lastEventIds, ...(given.cursor === undefined ? [] : [given.cursor])], push.journal)
  const device = deviceOf(caller.identity, given.device)
  const { body, peer, begin } = streamWriterOf(request, reply, 2 * heartbeat)
  const stream = new EventStream(context, {
    caller,
    device,
    filters,
    encode: streamEncoder({ enveloped, json }),
    cursor,
    last,
    body,
    peer,
  })
  begin(eventsHeaders, streamStart({ connection: stream.id, device, heartbeat: heartbeat / 1000 }))
  return reply
}
