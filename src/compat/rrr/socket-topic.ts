import { GatewayError } from '../../base/errors.js'
import { pathOf } from '../../http/request-target.js'
import type { TopicPredicate } from '../../topics/match.js'
import { isTopicName, type TopicBounds } from '../../topics/topic-syntax.js'

/** Precedes the name of a connection in its topics. */
export const topicRoot = 'httpserver/websocket/'

/** As long as the name of a connection. */
const sampleName = 'x'.repeat(22)

/** Rules for the URL of a handshake. */
export interface SocketTopics {
  /** Where its URLs begin; `/`, or without a slash at the end. */
  readonly prefix: string
  /** Bounds of the whole topic, `httpserver/websocket/<connection>/<topic>`. */
  readonly bounds: TopicBounds
  /** Topics that a WebSocket may be opened for. */
  readonly isOpen: TopicPredicate
}

export function isBelow(prefix: string, path: string): boolean {
  return prefix === '/' || path === prefix || path.startsWith(`${prefix}/`)
}

/**
 * The topic that a handshake asks for: its path below the prefix, without the query.
 *
 * @throws {GatewayError} `invalid-parameter` if that is not a topic, `unknown-path` if it is not open
 */
export function topicOf(url: string | undefined, { prefix, bounds, isOpen }: SocketTopics): string {
  const path = pathOf(url)
  const topic = decode(path.slice(prefix === '/' ? 1 : prefix.length + 1))
  if (topic === undefined || topic === '') {
    throw new GatewayError('invalid-parameter', {
      hint: `the path must have a topic, as in ${prefix.replace(/\/$/, '')}/news`,
    })
  }
  if (!isTopicName(`${topicRoot}${sampleName}/${topic}`, bounds)) {
    throw new GatewayError('invalid-parameter', { hint: 'the path must be the name of a topic, without + and #' })
  }
  if (!isOpen(topic)) throw new GatewayError('unknown-path')
  return topic
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
