import { createServer, type Socket } from 'node:net'
import { normalizeAddress, unixAddress } from '../access/addresses.js'
import type { ConnectionLimits } from '../access/limits.js'
import type { SiteRules } from '../access/site-rules.js'
import { type ConnectionLog, LazyLogger } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import type { Peer } from '../broker/broker.js'
import { acceptCounted } from './admission.js'
import { type Listener, type ListenOptions, listen } from './listener.js'
import { RefusalLog } from './refusal-log.js'

export interface MqttListenerOptions extends Omit<ListenOptions, 'purpose'> {
  readonly site?: SiteRules | undefined
  readonly limits: ConnectionLimits
  /** Makes the id of a connection in the log. */
  readonly nextId: () => string
  /** Gets each connection. Its socket may be half-open, has no delay, and is unread. */
  accept(socket: Socket, peer: Peer, log: ConnectionLog): void | Promise<void>
}

/** Milliseconds of silence before the first TCP keep-alive probe. */
const tcpKeepAliveDelay = 60_000

/**
 * Listens for plain MQTT. A refused connection is closed without a reason: MQTT has no packet for one before a CONNECT.
 *
 * @throws {StartError} when an address cannot be bound
 */
export function startMqttListener(options: MqttListenerOptions): Promise<Listener> {
  const { site, limits, nextId, metrics, accept } = options
  const refusals = new RefusalLog()
  const onConnection = (socket: Socket): void => {
    const connection = nextId()
    const peer: Peer = {
      connection,
      address: socket.remoteAddress === undefined ? unixAddress : normalizeAddress(socket.remoteAddress),
      port: socket.remotePort ?? 0,
      localAddress: socket.localAddress ?? '',
      localPort: socket.localPort ?? 0,
    }
    const log = new LazyLogger(options.log, { connection, peer: peer.address })
    socket.on('error', error => log.debug({ err: error }, 'The socket failed'))
    const refuse = (cause: unknown): void => {
      const error = GatewayError.from(cause)
      metrics.refused(error.reason)
      refusals.write(log, error)
      socket.destroy()
    }
    try {
      site?.checkAddress(peer.address)
      const release = limits.admit(peer.address)
      acceptCounted(socket, release, () => accept(socket, peer, log)).catch(refuse)
    } catch (error) {
      refuse(error)
    }
  }
  const socketOptions = {
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: tcpKeepAliveDelay,
  }
  return listen(() => createServer(socketOptions, onConnection), { ...options, purpose: 'mqtt' })
}
