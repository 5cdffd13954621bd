import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Caller } from '../../http/api-gate.js'
import { ParameterError } from '../../http/parameters.js'
import { scriptType } from '../../transports/jsonp.js'
import type { OpenPolls } from '../../transports/poll/open-polls.js'
import { PollResponse } from '../../transports/poll/poll-response.js'
import { ReplyWriter } from '../../transports/poll/poll-writer.js'
import { EventStream } from '../../transports/sse/event-stream.js'
import { allowSilence, beginResponse, streamWriterOf } from '../../transports/stream-writer.js'
import { deviceOf } from '../../transports/subscriptions.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { cursorOf, listFormat } from './positions.js'
import { type ChangesQuery, newestSince } from './query.js'
import { rowEncoder } from './rows.js'
import { type Silence, type StreamFeed, type streamContexts, streamForms } from './streams.js'

/** Parts that all feeds share. */
export interface ChangesContext {
  readonly options: TransportContext
  readonly polls: OpenPolls
  readonly contextOf: ReturnType<typeof streamContexts>
  /** Maximum and default time that a feed waits for a change, in milliseconds. */
  readonly timeout: number
}

export interface ChangesRequest {
  readonly caller: Caller
  readonly filters: readonly string[]
  readonly query: ChangesQuery
}

/** Sends the feed that the query asks for. */
export function answerChanges(
  request: FastifyRequest,
  reply: FastifyReply,
  context: ChangesContext,
  changes: ChangesRequest,
): FastifyReply {
  const { feed, callback } = changes.query
  if (feed === 'normal' || feed === 'longpoll') return answerOnce(request, reply, context, changes)
  if (callback !== undefined) throw new ParameterError('callback', 'callback is for feeds that are answered once')
  return openFeed(request, reply, context, { ...changes, feed })
}

/** Sends a list of stored changes; if there are none, a long-poll waits for the next ones. */
function answerOnce(
  request: FastifyRequest,
  reply: FastifyReply,
  { options, polls, timeout: maxTimeout }: ChangesContext,
  { caller, filters, query }: ChangesRequest,
): FastifyReply {
  const { feed, callback, since, include_docs: includeDocs, timeout = maxTimeout, heartbeat } = query
  const waits = feed === 'longpoll'
  const heartbeatInterval = waits ? heartbeat : undefined
  reply
    .header('cache-control', 'no-store')
    .type(callback === undefined ? 'application/json; charset=utf-8' : scriptType)
  if (request.method === 'HEAD') return reply.send()
  // The client may have disconnected during authentication.
  if (request.raw.socket.destroyed) return reply.hijack()
  new PollResponse(options, {
    ...{ caller, filters, polls, last: undefined, writer: new ReplyWriter(reply) },
    cursor: cursorOf(options.push.journal, since),
    limit: query.limit ?? (waits && callback !== undefined ? 1 : Number.POSITIVE_INFINITY),
    device: deviceFor(request, caller, query.device),
    encode: rowEncoder('list', includeDocs),
    format: listFormat(options.push.journal, callback),
    timeout: !waits ? 0 : heartbeatInterval === undefined ? Math.min(timeout, maxTimeout) : Number.POSITIVE_INFINITY,
    heartbeat: heartbeatInterval,
  })
  allowSilence(request, reply, 2 * maxTimeout)
  return reply.hijack()
}

/** Opens a feed that sends rows as changes occur. */
function openFeed(
  request: FastifyRequest,
  reply: FastifyReply,
  { options, contextOf, timeout: maxTimeout }: ChangesContext,
  { caller, filters, feed, query }: ChangesRequest & { readonly feed: StreamFeed },
): FastifyReply {
  const { headers, first } = streamForms[feed]
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginResponse(reply, headers).end()
    return reply
  }
  const { include_docs: includeDocs, limit } = query
  const { journal } = options.push
  const since = feed === 'eventsource' ? newestSince(request, query.since, journal.head) : query.since
  const silence = silenceOf(feed, query, { maxTimeout, usual: options.push.config.heartbeat })
  const { body, peer, begin } = streamWriterOf(request, reply, 2 * Math.max(silence.interval, maxTimeout))
  new EventStream(contextOf(feed, silence), {
    ...{ caller, filters, body, peer, device: deviceFor(request, caller, query.device) },
    cursor: cursorOf(journal, since),
    encode: rowEncoder(feed === 'continuous' ? 'line' : 'message', includeDocs),
    ...(limit !== undefined && { limit }),
  })
  begin(headers, first)
  return reply
}

/** A feed with a heartbeat has no end. Neither has one for an EventSource, which would only reconnect. */
function silenceOf(
  feed: StreamFeed,
  { heartbeat, timeout }: ChangesQuery,
  { maxTimeout, usual }: { readonly maxTimeout: number; readonly usual: number },
): Silence {
  if (heartbeat !== undefined) return { interval: heartbeat, ends: false }
  if (feed === 'eventsource' && timeout === undefined) return { interval: usual, ends: false }
  return { interval: Math.min(timeout ?? maxTimeout, maxTimeout), ends: true }
}

/**
 * CouchDB's clients have no device names, and reconnect all the time: clients with the same address and user agent are one
 * device, so that presence does not count each request.
 */
function deviceFor({ headers }: FastifyRequest, { identity, client }: Caller, named: string | undefined): string {
  if (named !== undefined || identity.user !== undefined) return deviceOf(identity, named)
  const key = `${client.address}\n${headers['user-agent'] ?? ''}`
  return deviceOf(identity, `couchdb-${createHash('sha256').update(key).digest('hex').slice(0, 16)}`)
}
