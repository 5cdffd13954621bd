import type { FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import type { Metrics } from '../../base/metrics.js'
import type { ApiGate } from '../../http/api-gate.js'
import type { ControlEvents } from './event-stream.js'

/*
 * The format of all event streams (HTML Living Standard §9.2). Every block has data, except comments: several clients take an id only from a block
 * with data, and others fail on a block without.
 */

/** The reconnection time of an EventSource, in milliseconds. */
export const usualRetry = 2000

/** em-eventsource takes less for 0. */
const leastRetry = 1000

/** Headers of endless responses. */
export const streamHeaders = {
  // Proxies that compress a stream hold it back until a block is full (no-transform: RFC 9111 §5.2.2.6).
  'cache-control': 'no-store, no-transform',
  // nginx would buffer events until they fill a page.
  'x-accel-buffering': 'no',
}

/** Headers of event streams with UTF-8 declared. */
export const eventsHeaders = { ...streamHeaders, 'content-type': 'text/event-stream; charset=utf-8' }

/** A heartbeat: a comment without an empty line behind it, because some clients take each empty line for the end of an event. */
export const commentLine = ':\n'

/** The start of a stream: the reconnection time and the first event. The comment is for clients that wait for a first byte. */
export function firstEvent(name: string, data: string): string {
  return `${commentLine}retry: ${usualRetry}\nevent: ${name}\ndata: ${data}\n\n`
}

/** An event that sets `Last-Event-ID`: `live` after all events up to this position. */
export function liveEvent(id: string, data: object): string {
  return `event: live\ndata: ${JSON.stringify(data)}\nid: ${id}\n\n`
}

/** The reconnection time. @param seconds from now */
export function retryLine(seconds: number): string {
  return `retry: ${Math.max(leastRetry, Math.ceil(seconds * 1000))}\n`
}

/** Whether a request accepts event streams explicitly, as every EventSource does. */
export function asksForEventStream({ headers }: Pick<FastifyRequest, 'headers'>): boolean {
  return headers.accept !== undefined && /(?:^|,)[\t ]*text\/event-stream[\t ]*(?:[;,]|$)/i.test(headers.accept)
}

export interface RefusedStreamOptions {
  readonly gate: ApiGate
  readonly metrics: Metrics
  readonly log: Logger
  readonly controlEvents: Pick<ControlEvents, 'end'>
  /** Headers of the response, except `Retry-After`. */
  readonly headers: Readonly<Record<string, string>>
}

/**
 * Answers a temporary error with status 200, the reconnection time and the last event: an EventSource closes for good on any other status.
 *
 * @throws the error, if it is not a `GatewayError` with a `retryAfter`
 */
export function answerPassingRefusal(
  request: FastifyRequest,
  reply: FastifyReply,
  error: unknown,
  { gate, metrics, log, controlEvents, headers }: RefusedStreamOptions,
): FastifyReply {
  if (!(error instanceof GatewayError) || error.retryAfter === undefined) throw error
  const { reason, level, text, cause, retryAfter } = error
  metrics.refused(reason)
  log[level]({ peer: gate.clientOf(request).address, reason, status: 200, err: cause }, text)
  reply.headers({ ...headers, 'retry-after': String(retryAfter) })
  // In one block with the event: a block of `retry` alone has no data.
  return reply.send(Buffer.concat([Buffer.from(retryLine(retryAfter)), controlEvents.end(error)]))
}
