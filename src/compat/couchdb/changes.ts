import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Caller } from '../../http/api-gate.js'
import { ParameterError } from '../../http/parameters.js'
import { deviceOf } from '../../transports/device.js'
import { scriptType } from '../../transports/jsonp.js'
import type { OpenPolls } from '../../transports/poll/open-polls.js'
import { PollResponse } from '../../transports/poll/poll-response.js'
import { ReplyWriter } from '../../transports/poll/poll-writer.js'
import { EventStream } from '../../transports/sse/event-stream.js'
import { allowSilence, beginResponse, streamWriterOf } from '../../transports/stream-writer.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { listForm } from './forms.js'
import { type ChangesQuery, newestSince } from './query.js'
import { rowEncoder } from './rows.js'
import { cursorOf } from './sequence.js'
import { type Silence, type StreamContexts, type StreamFeed, streamForms } from './streams.js'

/** What all answers with changes are made with. */
export interface ChangesContext {
  readonly options: TransportContext
  readonly polls: OpenPolls
  readonly streams: StreamContexts
  /** How long a feed waits for a change, at the most and by default, in milliseconds. */
  readonly timeout: number
}

/** Who wants which changes. */
export interface ChangesOrder {
  readonly caller: Caller
  readonly filters: readonly string[]
  readonly query: ChangesQuery
}

/** Answers with a feed. */
export function answerChanges(
  request: FastifyRequest,
  reply: FastifyReply,
  house: ChangesContext,
  order: ChangesOrder,
): FastifyReply {
  const { feed, callback } = order.query
  if (feed === 'normal' || feed === 'longpoll') return answerOnce(request, reply, house, order)
  if (callback !== undefined) throw new ParameterError('callback', 'callback is for feeds that are answered once')
  return openFeed(request, reply, house, { ...order, feed })
}

/** A list of what there is; where that is nothing, and the feed is a long-poll, of what comes. */
function answerOnce(
  request: FastifyRequest,
  reply: FastifyReply,
  { options, polls, timeout: longest }: ChangesContext,
  { caller, filters, query }: ChangesOrder,
): FastifyReply {
  const { feed, callback, since, include_docs: includeDocs, timeout = longest, heartbeat } = query
  const waits = feed === 'longpoll'
  const beats = waits ? heartbeat : undefined
  reply
    .header('cache-control', 'no-store')
    .type(callback === undefined ? 'application/json; charset=utf-8' : scriptType)
  if (request.method === 'HEAD') return reply.send()
  // The client may have gone while it was found out who it is.
  if (request.raw.socket.destroyed) return reply.hijack()
  polls.makeRoom(undefined)
  const made = new PollResponse(options, {
    ...{ caller, filters, last: undefined, writer: new ReplyWriter(reply) },
    cursor: cursorOf(options.push.journal, since),
    limit: query.limit ?? (waits && callback !== undefined ? 1 : Number.POSITIVE_INFINITY),
    device: deviceFor(request, caller, query.device),
    encode: rowEncoder('list', includeDocs),
    format: listForm(options.push.journal, callback),
    timeout: !waits ? 0 : beats === undefined ? Math.min(timeout, longest) : Number.POSITIVE_INFINITY,
    heartbeat: beats,
    ended: () => polls.delete(made, undefined),
  })
  polls.add(made, undefined)
  allowSilence(request, reply, 2 * longest)
  return reply.hijack()
}

/** Rows as they come. */
function openFeed(
  request: FastifyRequest,
  reply: FastifyReply,
  { options, streams, timeout: longest }: ChangesContext,
  { caller, filters, feed, query }: ChangesOrder & { readonly feed: StreamFeed },
): FastifyReply {
  const { headers, first } = streamForms[feed]
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginResponse(reply, headers).end()
    return reply
  }
  const { include_docs: includeDocs, limit } = query
  const { journal } = options.push
  const since = feed === 'eventsource' ? newestSince(request, query.since, journal.head) : query.since
  const silence = silenceOf(feed, query, { longest, usual: options.push.config.heartbeat })
  const { body, peer, begin } = streamWriterOf(request, reply, 2 * Math.max(silence.interval, longest))
  new EventStream(streams.houseOf(feed, silence), {
    ...{ caller, filters, body, peer, device: deviceFor(request, caller, query.device) },
    cursor: cursorOf(journal, since),
    encode: rowEncoder(feed === 'continuous' ? 'line' : 'message', includeDocs),
    ...(limit !== undefined && { limit }),
  })
  begin(headers, first)
  return reply
}

/** With a heartbeat, a feed has no end. So has one for an EventSource, which would only come back. */
function silenceOf(
  feed: StreamFeed,
  { heartbeat, timeout }: ChangesQuery,
  { longest, usual }: { readonly longest: number; readonly usual: number },
): Silence {
  if (heartbeat !== undefined) return { interval: heartbeat, ends: false }
  if (feed === 'eventsource' && timeout === undefined) return { interval: usual, ends: false }
  return { interval: Math.min(timeout ?? longest, longest), ends: true }
}

/**
 * CouchDB's clients know nothing of devices, and come back all the time: those of one address that call themselves the same
 * are one, so that presence does not count each of their requests.
 */
function deviceFor({ headers }: FastifyRequest, { identity, client }: Caller, named: string | undefined): string {
  if (named !== undefined || identity.user !== undefined) return deviceOf(identity, named)
  const key = `${client.address}\n${headers['user-agent'] ?? ''}`
  return deviceOf(identity, `couchdb-${createHash('sha256').update(key).digest('hex').slice(0, 16)}`)
}
