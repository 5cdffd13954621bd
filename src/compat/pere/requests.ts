import { isUtf8 } from 'node:buffer'
import type { FastifyRequest } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import { isUserName } from '../../base/identity.js'
import type { PushConfig } from '../../config/push.js'
import type { Caller } from '../../http/api-gate.js'
import { topicPredicate } from '../../topics/match.js'
import { filterDepthProblem, topicNameProblem } from '../../topics/topic-syntax.js'
import { lastEventIdsOf } from '../../transports/last-event-id.js'

/** Characters of a last event id that are read; an id has at most 32. */
const maxId = 64

/** Request headers for pages of other origins. */
export const allowedHeaders = 'authorization, cache-control, content-type, device, last-event-id'

/** Reads the channel of a request: a topic, in one segment of the path. */
export type ChannelReader = (request: FastifyRequest) => string

/** @returns throws a `GatewayError` (`invalid-parameter`) for a channel that is not a topic, or not in `push.topics` */
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

/** @throws {GatewayError} `topic-refused` if the caller may not subscribe to the channel */
export function requireSubscribe({ permissions }: Caller, channel: string): void {
  if (!permissions.maySubscribe(channel)) throw new GatewayError('topic-refused')
}

/**
 * The device's name in the header `Device`, else in the query; `undefined` if neither has one.
 *
 * @throws {GatewayError} `invalid-parameter` if the name is invalid
 */
export function deviceNamed({ headers, query }: FastifyRequest): string | undefined {
  const name = utf8Of(textOf(headers['device'])) || textOf((query as Record<string, unknown>)['device'])
  if (name === '') return undefined
  if (isUserName(name)) return name
  throw new GatewayError('invalid-parameter', { hint: 'Device must have 1 to 255 bytes, and no control characters' })
}

export function lastEventIds(request: FastifyRequest): string[] {
  return lastEventIdsOf(request, maxId)
}

function textOf(value: unknown): string {
  const last: unknown = Array.isArray(value) ? value.at(-1) : value
  return typeof last === 'string' ? last : ''
}

/** Node decodes headers as ISO-8859-1; clients that send non-ASCII bytes mean UTF-8. */
function utf8Of(header: string): string {
  const bytes = Buffer.from(header, 'latin1')
  return isUtf8(bytes) ? bytes.toString() : header
}
