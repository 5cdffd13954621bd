import { anonymous } from '../../base/identity.js'
import type { RrrConfig } from '../../config/compat.js'
import { topicPredicate } from '../../topics/match.js'
import type { TopicBounds } from '../../topics/topic-syntax.js'
import { Heartbeats } from '../../transports/heartbeats.js'
import { chooseSubprotocol, type SocketEndpoint, WebSockets } from '../../transports/socket/web-sockets.js'
import { RrrSocketConnection, type RrrSocketContext } from './socket-connection.js'
import { isBelow, type SocketTopics, topicOf } from './socket-topic.js'

/** Milliseconds of silence after which a client is pinged, and as long again until the connection ends. */
const defaultPingInterval = 5000

/** The largest message, in bytes. */
const maxMessageSize = 16 * 1024 ** 2

export interface RrrSocketOptions extends Omit<RrrSocketContext, 'pings' | 'binary'> {
  readonly config: RrrConfig
  /** Bounds of topics. */
  readonly topic: TopicBounds
  /** The largest MQTT packet that the broker takes, in bytes; no limit when left out. */
  readonly packetSize?: number | undefined
  /** Time for the client's close frame, in milliseconds. */
  readonly closeTimeout: number
  /** Milliseconds; default: 5,000. */
  readonly pingInterval?: number
}

/**
 * Makes `<prefix>/<topic>`: WebSockets without a subprotocol whose messages are those of MQTT topics. The caller has
 * admitted the handshake, and tries all other endpoints first.
 */
export function createRrrSocketRoute(options: RrrSocketOptions): SocketEndpoint {
  const { config, topic: bounds, packetSize = Number.POSITIVE_INFINITY } = options
  const { prefix, binary } = config
  const pings = new Heartbeats(options.pingInterval ?? defaultPingInterval)
  const context: RrrSocketContext = { ...options, pings, binary }
  const topics: SocketTopics = { prefix, bounds, isOpen: topicPredicate(config.websocketTopicFilters) }
  // A packet's header is shorter than 16 bytes; 0 would mean no limit.
  const maxPayload = Math.max(1, Math.min(maxMessageSize, packetSize - bounds.topicLength - 16))
  const sockets = new WebSockets({ ...options, maxPayload })
  return {
    get size() {
      return sockets.size
    },
    get bufferedBytes() {
      return sockets.bufferedBytes
    },
    matches: path => isBelow(prefix, path),
    isEverywhere: prefix === '/',
    chooseSubprotocol: offered => chooseSubprotocol(offered),
    check: request => void topicOf(request.url, topics),
    accept: upgrade => {
      const { request, peer, log } = upgrade
      const { address, identity = anonymous } = peer
      const client = { identity, address, log }
      const topic = topicOf(request.url, topics)
      sockets.accept(upgrade, { address, user: identity.user }, createWriter => {
        return new RrrSocketConnection(context, client, topic, createWriter)
      })
    },
    close: grace => sockets.close(grace),
  }
}
