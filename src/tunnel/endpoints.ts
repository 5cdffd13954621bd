import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ConnectionLog } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import type { Broker, Peer } from '../broker/broker.js'
import { switchingProtocols } from '../websocket/handshake.js'
import type { TunnelOptions } from './tunnel.js'
import type { Tunnels } from './tunnels.js'
import { WebSocketClient } from './websocket-client.js'

/** A valid WebSocket handshake, as far as a tunnel needs it. */
export interface TunnelUpgrade {
  readonly socket: Duplex
  /** Bytes that the client sent after its request. */
  readonly head: Buffer
  /** `Sec-WebSocket-Key` */
  readonly key: string
  /** From `chooseSubprotocol`. */
  readonly subprotocol: string | undefined
  readonly peer: Peer
  /** Of the request. */
  readonly path?: string | undefined
  readonly log: ConnectionLog
}

export interface WebSocketEndpointOptions extends TunnelOptions {
  readonly broker: Broker
  /** Those spoken here; the client's order of preference counts. */
  readonly subprotocols: readonly string[]
  readonly requireSubprotocol: boolean
  /** Chosen independently of the client's offer. */
  readonly forceSubprotocol: string | undefined
}

/**
 * Chooses `forceSubprotocol`, or the first offer that is spoken here; `undefined` for none.
 *
 * @throws {GatewayError} `unsupported-subprotocol`, `subprotocol-required`
 */
export function chooseSubprotocol(
  { subprotocols, requireSubprotocol, forceSubprotocol }: WebSocketEndpointOptions,
  offered: readonly string[],
): string | undefined {
  if (forceSubprotocol !== undefined) return forceSubprotocol
  const chosen = offered.find(name => subprotocols.includes(name))
  if (chosen !== undefined) return chosen
  const hint = `offer ${subprotocols.join(' or ')}`
  if (offered.length > 0) throw new GatewayError('unsupported-subprotocol', { hint })
  if (requireSubprotocol) throw new GatewayError('subprotocol-required', { hint })
  return undefined
}

/**
 * Dials the broker, completes the handshake, and starts a tunnel. Resolves when it has started, or the client is gone.
 *
 * @throws {GatewayError} as `Tunnels.open`; nothing has been sent to the client then
 */
export function acceptWebSocket(
  options: WebSocketEndpointOptions,
  tunnels: Tunnels,
  { socket, head, key, subprotocol, peer, path, log }: TunnelUpgrade,
): Promise<void> {
  return tunnels.open({ broker: options.broker, peer, transport: 'websocket', path, options, log }, traffic => {
    // The client left while the broker was dialled.
    if (!socket.readable || !socket.writable) {
      socket.destroy()
      return undefined
    }
    if (head.length > 0) socket.unshift(head)
    // Small writes are complete MQTT packets, which must not be delayed.
    if (socket instanceof Socket) socket.setNoDelay(true)
    socket.write(switchingProtocols(key, subprotocol))
    log.setBindings({ subprotocol })
    return new WebSocketClient(socket, traffic)
  })
}
