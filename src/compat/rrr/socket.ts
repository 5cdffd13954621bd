import type { IncomingMessage } from 'node:http'
import type { Rate } from '../../access/rate-limits.js'
import { GatewayError } from '../../base/errors.js'
import { anonymous } from '../../base/identity.js'
import type { RrrConfig } from '../../config/compat.js'
import type { Upgrade, UpgradeRoute } from '../../http/upgrade-route.js'
import { topicPredicate } from '../../topics/match.js'
import type { TopicBounds } from '../../topics/topic-syntax.js'
import { Heartbeats } from '../../transports/heartbeats.js'
import { SocketWriter } from '../../transports/socket/socket-writer.js'
import { offeredBy, WebSockets } from '../../transports/socket/web-sockets.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { RrrSocketConnection, type RrrSocketContext } from './socket-connection.js'
import { isBelow, type SocketTopics, topicOf } from './socket-topic.js'

/** Milliseconds of silence after which a client is asked whether it is there, and as long again until it is taken for gone. */
const defaultPingInterval = 5000

/** The largest message, in bytes. */
const largest = 16 * 1024 ** 2

export interface RrrSocketOptions extends TransportContext {
  readonly config: RrrConfig
  /** How large topics may be. */
  readonly topic: TopicBounds
  /** The largest MQTT packet that the broker takes, in bytes; left out for any. */
  readonly packetSize?: number | undefined
  /** Messages that one connection may publish; left out for any number. */
  readonly publishes?: Rate | undefined
  /** How long a client may take to answer a close frame, in milliseconds. */
  readonly closeTimeout: number
  /** Milliseconds; default: 5,000. */
  readonly pingInterval?: number
}

/** The endpoint of RRR's WebSockets. */
export interface RrrSocketRoute extends Pick<UpgradeRoute, 'matches' | 'isEverywhere' | 'accept'> {
  /** How many are open. */
  readonly size: number
  check(request: IncomingMessage): void
  /**
   * Ends all that are open. Idempotent.
   *
   * @param grace milliseconds after which those that have not closed are cut off
   */
  close(grace: number): Promise<void>
}

/**
 * Makes `<prefix>/<topic>`: WebSockets without a subprotocol whose messages are those of MQTT topics. Whoever leads
 * handshakes here has let them in, and asks all other endpoints first.
 */
export function createRrrSocketRoute(options: RrrSocketOptions): RrrSocketRoute {
  const { config, topic: bounds, packetSize = Number.POSITIVE_INFINITY, publishes, closeTimeout } = options
  const { prefix, binary } = config
  const pings = new Heartbeats(options.pingInterval ?? defaultPingInterval)
  const house: RrrSocketContext = { ...options, pings, publishes, binary }
  const topics: SocketTopics = { prefix, bounds, isOpen: topicPredicate(config.websocketTopicFilters) }
  // The head of a packet is less than 16 bytes; and 0 would be no bound.
  const sockets = new WebSockets({ maxPayload: Math.max(1, Math.min(largest, packetSize - bounds.topicLength - 16)) })

  const check = (request: IncomingMessage): void => {
    // `ws` also takes version 8, whose browsers name their origin in another header, which nobody has checked.
    if (request.headers['sec-websocket-version'] !== '13') throw new GatewayError('unsupported-version')
    if (offeredBy(request).length > 0) throw new GatewayError('unsupported-subprotocol', { hint: 'offer none' })
    topicOf(request.url, topics)
  }
  const accept = (upgrade: Upgrade): void => {
    const { request, peer, log } = upgrade
    check(request)
    const { address, identity = anonymous } = peer
    const order = { identity, address, topic: topicOf(request.url, topics), log }
    const { budget, timeout: messageTimeout } = options.bodies
    sockets.accept(upgrade, (webSocket, connection) => {
      const held = budget.open({ address, user: identity.user })
      const wire = { webSocket, connection, held, messageTimeout, closeTimeout }
      return new RrrSocketConnection(house, order, listener => new SocketWriter(wire, listener))
    })
  }
  return {
    get size() {
      return sockets.size
    },
    matches: path => isBelow(prefix, path),
    isEverywhere: prefix === '/',
    check,
    accept,
    close: grace => sockets.close(grace),
  }
}
