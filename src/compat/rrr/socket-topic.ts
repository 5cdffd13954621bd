import { GatewayError } from '../../base/errors.js'
import { pathOf } from '../../http/request-target.js'
import type { TopicPredicate } from '../../topics/match.js'
import { isTopicName, type TopicBounds } from '../../topics/topic-syntax.js'

/** What is before the name of a connection in its topics. */
export const topicRoot = 'httpserver/websocket/'

/** A name that is as long as that of a connection. */
const anyName = 'x'.repeat(22)

/** What a handshake's URL is checked by. */
export interface SocketTopics {
  /** Where its URLs begin; `/`, or without a slash at the end. */
  readonly prefix: string
  /** Of MQTT's topics, that is, of all of `httpserver/websocket/<connection>/<topic>`. */
  readonly bounds: TopicBounds
  /** Topics that a WebSocket may be opened for. */
  readonly isOpen: TopicPredicate
}

/** Whether a path is one of these URLs, as far as the prefix says. */
export function isBelow(prefix: string, path: string): boolean {
  return prefix === '/' || path === prefix || path.startsWith(`${prefix}/`)
}

/**
 * The topic that a handshake asks for: its path below the prefix, without the query.
 *
 * @throws {Ending} `invalid-parameter` where that is no topic, `unknown-path` where it is not open
 */
export function topicOf(url: string | undefined, { prefix, bounds, isOpen }: SocketTopics): string {
  const path = pathOf(url)
  const topic = decode(path.slice(prefix === '/' ? 1 : prefix.length + 1))
  if (topic === undefined || topic === '') {
    throw new GatewayError('invalid-parameter', {
      hint: `the path must have a topic, as in ${prefix.replace(/\/$/, '')}/news`,
    })
  }
  if (!isTopicName(`${topicRoot}${anyName}/${topic}`, bounds)) {
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
