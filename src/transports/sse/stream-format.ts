import type { FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import type { Metrics } from '../../base/metrics.js'
import type { ApiGate } from '../../http/api-gate.js'
import type { ControlEvents } from './event-stream.js'

/*
 * The form that all event streams have (HTML Living Standard §9.2). No block is without data, except comments: several clients take an id only from a
 * block with data, and others fail on a block without.
 */

/** How soon an EventSource comes back, in milliseconds. */
export const usualRetry = 2000

/** Less is at once for em-eventsource. */
const leastRetry = 1000

/** Headers of responses that go on for as long as the client stays. */
export const streamHeaders = {
  // With no-transform, proxies do not compress the stream (RFC 9111 §5.2.2.6); those that do hold it back until a block is full.
  'cache-control': 'no-store, no-transform',
  // nginx would otherwise keep events back until they fill a page.
  'x-accel-buffering': 'no',
}

/** A sign of life: a comment without an empty line behind it, because some clients take each empty line for the end of an event. */
export const commentLine = ':\n'

/** The start of a stream: the time until a client comes back, and the first event. The comment is for clients that wait for a first byte. */
export function firstEvent(name: string, data: string): string {
  return `${commentLine}retry: ${usualRetry}\nevent: ${name}\ndata: ${data}\n\n`
}

/** The id to come back with, in an event of its own: `live` says that everything up to there has been sent. */
export function liveEvent(id: string, data: object): string {
  return `event: live\ndata: ${JSON.stringify(data)}\nid: ${id}\n\n`
}

/** The time after which a client is to come back. @param seconds from now */
export function retryLine(seconds: number): string {
  return `retry: ${Math.max(leastRetry, Math.ceil(seconds * 1000))}\n`
}

/** Whether a request says that it wants an event stream, as each EventSource does, and not only anything. */
export function asksForEventStream({ headers }: Pick<FastifyRequest, 'headers'>): boolean {
  return headers.accept !== undefined && /(?:^|,)[\t ]*text\/event-stream[\t ]*(?:[;,]|$)/i.test(headers.accept)
}

/** The parts that a refused stream is answered with. */
export interface RefusedStreamOptions {
  readonly gate: ApiGate
  readonly metrics: Metrics
  readonly log: Logger
  readonly controlEvents: Pick<ControlEvents, 'end'>
  /** Of the response, beside `Retry-After`. */
  readonly headers: Readonly<Record<string, string>>
}

/**
 * Answers a refusal that will pass with status 200, the time to come back after, and the event that ends a stream: an EventSource closes for good on
 * any other status.
 *
 * @throws what was refused, where it is no `GatewayError` with a `retryAfter`
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
  // In one block with the event: a block with nothing but retry has no data.
  return reply.send(Buffer.concat([Buffer.from(retryLine(retryAfter)), controlEvents.end(error)]))
}
