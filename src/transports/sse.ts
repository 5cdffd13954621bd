import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { readQuery } from '../http/parameters.js'
import { deviceOf } from '../push/device.js'
import { type Answer, EventStream, type StreamHouse, type StreamOrder } from './event-stream.js'
import { Heartbeats } from './heartbeats.js'
import type { Operation } from './operation.js'
import { refuseOtherMethods } from './other-methods.js'
import { requirePermitted } from './permitted.js'
import { SharedBytes } from './shared-bytes.js'
import { encodeHeartbeat, encodePlace, streamEncoder, streamStart } from './sse-encoding.js'
import { flag, subscribeFields } from './subscribe-query.js'
import type { TransportOptions } from './transport.js'

const url = '/v1/events'

const preflight = { methods: 'GET', headers: 'authorization, cache-control, last-event-id' }

const query = z.object({
  ...subscribeFields,
  last_event_id: subscribeFields.cursor.describe('The same as cursor; the header Last-Event-ID comes before both'),
  enveloped: flag(true).describe('Whether events come as JSON with their topic, or as the bare payload'),
})

/** `GET /v1/events` */
export const eventsOperation: Operation = {
  method: 'get',
  path: url,
  summary: 'An event stream for EventSource (text/event-stream): what is there, and then what comes',
  query,
  responses: {
    200: { description: 'The stream; it ends when the gateway or the client says so', type: 'text/event-stream' },
  },
}

const streamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-store',
  // nginx would otherwise keep events back until they fill a page.
  'x-accel-buffering': 'no',
}

/** Adds `GET /v1/events`: server-sent events (HTML Living Standard §9.2). */
export function registerEvents(app: FastifyInstance, options: TransportOptions): void {
  const { gate, push } = options
  const house: StreamHouse = {
    ...options,
    heartbeats: new Heartbeats(push.config.heartbeat),
    places: new SharedBytes(encodePlace),
    signs: new SharedBytes(encodeHeartbeat),
  }
  app.get(url, (request, reply) => openStream(request, reply, house))
  app.options(url, async (request, reply) => gate.preflight(request, reply, preflight))
  refuseOtherMethods(app, url, ['GET', 'HEAD', 'OPTIONS'])
}

async function openStream(request: FastifyRequest, reply: FastifyReply, house: StreamHouse): Promise<FastifyReply> {
  const { gate, push } = house
  const caller = await gate.admit(request, reply)
  const { topic: filters, enveloped, json, last, ...given } = readQuery(request, query)
  requirePermitted(caller.permissions, filters)
  const answer: Answer = reply.raw
  const { socket } = request.raw
  // The client may have gone while it was found out who it is.
  if (socket.destroyed || request.method === 'HEAD') {
    begin(reply, answer)
    answer.end()
    return reply
  }
  const cursor = headerOf(request) ?? given.cursor ?? given.last_event_id
  const device = deviceOf(caller.identity, given.device)
  const encode = streamEncoder({ enveloped, json })
  const stream = new EventStream(house, {
    ...{ caller, device, answer, filters, encode },
    ...(cursor !== undefined && { cursor }),
    ...(last !== undefined && { last }),
    ...wireOf(answer, request),
  })
  begin(reply, answer)
  answer.write(streamStart({ connection: stream.id, device, heartbeat: push.config.heartbeat / 1000 }))
  keepOpen(answer, request, 2 * push.config.heartbeat)
  return reply
}

function wireOf(answer: Answer, request: FastifyRequest): Pick<StreamOrder, 'wire' | 'peer'> {
  if ('stream' in answer) return { wire: answer.stream, peer: answer.stream }
  // Behind an answer that is still being written (pipelining), it has no connection yet.
  return { wire: answer.socket ?? answer, peer: request.raw.socket }
}

/** What an EventSource that comes back had last; an empty one is none. */
function headerOf({ headers }: FastifyRequest): string | undefined {
  const id = headers['last-event-id']
  return typeof id === 'string' && id !== '' ? id.slice(0, 64) : undefined
}

/** Takes the answer over, and writes its head. */
function begin(reply: FastifyReply, answer: Answer): void {
  reply.hijack()
  const headers = { ...reply.getHeaders(), ...streamHeaders }
  for (const [name, value] of Object.entries(headers)) if (value !== undefined) answer.setHeader(name, value)
  if (!('stream' in answer)) {
    // The end of the connection is that of the answer, so that the same bytes go to everybody, whatever the version.
    answer.removeHeader('transfer-encoding')
    answer.setHeader('connection', 'close')
  }
  answer.writeHead(200)
}

/** A stream is silent for longer than other connections may be. */
function keepOpen(answer: Answer, request: FastifyRequest, silence: number): void {
  if (!('stream' in answer)) request.raw.socket.setTimeout(0)
  else if (silence > 60_000) answer.stream.session?.setTimeout(silence)
}
