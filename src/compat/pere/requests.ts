import { isUtf8 } from 'node:buffer'
import type { FastifyRequest } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import { isUserName } from '../../base/identity.js'
import type { PushConfig } from '../../config/push.js'
import type { Caller } from '../../http/api-gate.js'
import { topicPredicate } from '../../topics/match.js'
import { filterDepthProblem, topicNameProblem } from '../../topics/topic-syntax.js'
import { lastEventIdsOf } from '../../transports/last-event-id.js'

/** Of what a client says it had last, so much is looked at: an id has at most 32 characters. */
const longestId = 64

/** The headers that a page of another origin may send. */
export const allowedHeaders = 'authorization, cache-control, content-type, device, last-event-id'

/** Reads the channel that a request names: a topic, in one part of the path. */
export type ChannelReader = (request: FastifyRequest) => string

/** @returns what throws a `GatewayError` (`invalid-parameter`) where it is no topic, or none that is pushed */
export function channelReader({ topics }: Pick<PushConfig, 'topics'>): ChannelReader {
  const isPushed = topicPredicate(topics)
  return ({ params }) => {
    const { channel = '' } = params as { readonly channel?: string }
    const problem = topicNameProblem(channel) ?? filterDepthProblem(channel)
    if (problem !== undefined) throw new GatewayError('invalid-parameter', { hint: `the channel ${problem}` })
    if (isPushed(channel)) return channel
    throw new GatewayError('invalid-parameter', { hint: 'push does not get this channel (push.topics)' })
  }
}

/** Sees to it that somebody may listen to a channel. @throws {GatewayError} `topic-refused`, without its name: see `answer` */
export function requireListener({ permissions }: Caller, channel: string): void {
  if (!permissions.maySubscribe(channel)) throw new GatewayError('topic-refused')
}

/**
 * What a device calls itself: in the header `Device`, else in the query; `undefined` where it does not.
 *
 * @throws {GatewayError} `invalid-parameter` where that is no name
 */
export function deviceNamed({ headers, query }: FastifyRequest): string | undefined {
  const name = utf8Of(textOf(headers['device'])) || textOf((query as Record<string, unknown>)['device'])
  if (name === '') return undefined
  if (isUserName(name)) return name
  throw new GatewayError('invalid-parameter', { hint: 'Device must have 1 to 255 bytes, and no control characters' })
}

/** The ids that a client says it had last, in the header `Last-Event-Id` and in the query. */
export function lastEventIds(request: FastifyRequest): string[] {
  return lastEventIdsOf(request, longestId)
}

/** Of what came several times, the last one counts. */
function textOf(value: unknown): string {
  const last: unknown = Array.isArray(value) ? value.at(-1) : value
  return typeof last === 'string' ? last : ''
}

/** Node takes the bytes of a header for ISO-8859-1; whoever sends others than ASCII means UTF-8. */
function utf8Of(header: string): string {
  const bytes = Buffer.from(header, 'latin1')
  return isUtf8(bytes) ? bytes.toString() : header
}
