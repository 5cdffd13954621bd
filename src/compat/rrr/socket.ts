import type { IncomingMessage } from 'node:http'
import type { Rate } from '../../access/rate-limits.js'
import { anonymous } from '../../base/identity.js'
import type { RrrConfig } from '../../config/compat.js'
import type { Upgrade, UpgradeRoute } from '../../http/upgrade-route.js'
import { topicPredicate } from '../../topics/match.js'
import type { TopicBounds } from '../../topics/topic-syntax.js'
import { Heartbeats } from '../../transports/heartbeats.js'
import { SocketWriter } from '../../transports/socket/socket-writer.js'
import { chooseSubprotocol, WebSockets } from '../../transports/socket/web-sockets.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { RrrSocketConnection, type RrrSocketContext } from './socket-connection.js'
import { isBelow, type SocketTopics, topicOf } from './socket-topic.js'

/** Milliseconds of silence after which a client is pinged, and as long again until the connection ends. */
const defaultPingInterval = 5000

/** The largest message, in bytes. */
const maxMessageSize = 16 * 1024 ** 2

export interface RrrSocketOptions extends TransportContext {
  readonly config: RrrConfig
  /** Bounds of topics. */
  readonly topic: TopicBounds
  /** The largest MQTT packet that the broker takes, in bytes; no limit when left out. */
  readonly packetSize?: number | undefined
  /** Rate of one connection's messages; no limit when left out. */
  readonly publishes?: Rate | undefined
  /** Time for the client's close frame, in milliseconds. */
  readonly closeTimeout: number
  /** Milliseconds; default: 5,000. */
  readonly pingInterval?: number
}

/** The endpoint of RRR's WebSockets. */
export interface RrrSocketRoute extends Pick<UpgradeRoute, 'matches' | 'isEverywhere' | 'accept'> {
  /** Number of open WebSockets. */
  readonly size: number
  chooseSubprotocol(offered: readonly string[]): string | undefined
  check(request: IncomingMessage): void
  /**
   * Ends all open WebSockets. Idempotent.
   *
   * @param grace milliseconds after which connections still open are destroyed
   */
  close(grace: number): Promise<void>
}

/**
 * Makes `<prefix>/<topic>`: WebSockets without a subprotocol whose messages are those of MQTT topics. The caller has
 * admitted the handshake, and tries all other endpoints first.
 */
export function createRrrSocketRoute(options: RrrSocketOptions): RrrSocketRoute {
  const { config, topic: bounds, packetSize = Number.POSITIVE_INFINITY, publishes, closeTimeout } = options
  const { prefix, binary } = config
  const pings = new Heartbeats(options.pingInterval ?? defaultPingInterval)
  const context: RrrSocketContext = { ...options, pings, publishes, binary }
  const topics: SocketTopics = { prefix, bounds, isOpen: topicPredicate(config.websocketTopicFilters) }
  // A packet's header is shorter than 16 bytes; 0 would mean no limit.
  const sockets = new WebSockets(Math.max(1, Math.min(maxMessageSize, packetSize - bounds.topicLength - 16)))

  const check = (request: IncomingMessage): void => {
    topicOf(request.url, topics)
  }
  const accept = (upgrade: Upgrade): void => {
    const { request, peer, log } = upgrade
    const { address, identity = anonymous } = peer
    const client = { identity, address, topic: topicOf(request.url, topics), log }
    const { budget, timeout: messageTimeout } = options.bodies
    sockets.accept(upgrade, (webSocket, connection) => {
      const held = budget.open({ address, user: identity.user })
      const writer = { webSocket, connection, held, messageTimeout, closeTimeout }
      return new RrrSocketConnection(context, client, listener => new SocketWriter(writer, listener))
    })
  }
  return {
    get size() {
      return sockets.size
    },
    matches: path => isBelow(prefix, path),
    isEverywhere: prefix === '/',
    chooseSubprotocol: offered => chooseSubprotocol(offered),
    check,
    accept,
    close: grace => sockets.close(grace),
  }
}
