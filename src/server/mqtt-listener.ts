import { createServer, type Socket } from 'node:net'
import { normalizeAddress, unixAddress } from '../access/addresses.js'
import type { ConnectionLimits } from '../access/limits.js'
import type { SiteRules } from '../access/site-rules.js'
import { type ConnectionLog, LazyLogger } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import type { Peer } from '../broker/broker.js'
import { takeOverWhileCounted } from './admission.js'
import { type Listener, type ListenOptions, listen } from './listener.js'
import { RefusalLog } from './refusal-log.js'

export interface MqttListenerOptions extends Omit<ListenOptions, 'purpose'> {
  readonly site?: SiteRules | undefined
  readonly limits: ConnectionLimits
  /** Names one connection in the log. */
  readonly nextId: () => string
  /** Takes a connection over. The socket is half-open capable, sends without delay, and was not read from. */
  accept(socket: Socket, peer: Peer, log: ConnectionLog): void | Promise<void>
}

/** How long a connection is silent before TCP asks whether it is still there, in milliseconds. */
const tcpKeepAliveDelay = 60_000

/**
 * Listens for plain MQTT. There is no way to say why in MQTT before a CONNECT, so what is over a limit is closed.
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
    const refuse = (error: unknown): void => {
      const ending = GatewayError.from(error)
      metrics.refused(ending.reason)
      refusals.write(log, ending)
      socket.destroy()
    }
    try {
      site?.checkAddress(peer.address)
      const release = limits.admit(peer.address)
      takeOverWhileCounted(socket, release, () => accept(socket, peer, log)).catch(refuse)
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
