import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ConnectionLog } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import type { Broker, Peer } from '../broker/broker.js'
import { switchingProtocols } from '../websocket/handshake.js'
import { TcpClient } from './client.js'
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

/** One WebSocket endpoint for MQTT: dials the broker, completes the handshake, and starts a tunnel. */
export class WebSocketEndpoint {
  readonly #options: WebSocketEndpointOptions
  readonly #tunnels: Tunnels

  constructor(options: WebSocketEndpointOptions, tunnels: Tunnels) {
    this.#options = options
    this.#tunnels = tunnels
  }

  /**
   * Chooses `forceSubprotocol`, or the first offer that is spoken here; `undefined` for none.
   *
   * @throws {GatewayError} `unsupported-subprotocol`, `subprotocol-required`
   */
  chooseSubprotocol(offered: readonly string[]): string | undefined {
    const { subprotocols, requireSubprotocol, forceSubprotocol } = this.#options
    if (forceSubprotocol !== undefined) return forceSubprotocol
    const chosen = offered.find(name => subprotocols.includes(name))
    if (chosen !== undefined) return chosen
    const hint = `offer ${subprotocols.join(' or ')}`
    if (offered.length > 0) throw new GatewayError('unsupported-subprotocol', { hint })
    if (requireSubprotocol) throw new GatewayError('subprotocol-required', { hint })
    return undefined
  }

  /**
   * Resolves when the tunnel has started, or the client is gone.
   *
   * @throws {GatewayError} as `Tunnels.dial`; nothing has been sent to the client then
   */
  async accept({ socket, head, key, subprotocol, peer, log }: TunnelUpgrade): Promise<void> {
    const dialled = await this.#tunnels.dial(this.#options.broker, peer, 'websocket')
    // The client left while the broker was dialled.
    if (!socket.readable || !socket.writable) {
      socket.destroy()
      return dialled.abandon()
    }
    if (head.length > 0) socket.unshift(head)
    // Small writes are complete MQTT packets, which must not be delayed.
    if (socket instanceof Socket) socket.setNoDelay(true)
    socket.write(switchingProtocols(key, subprotocol))
    log.setBindings({ subprotocol })
    dialled.carry(new WebSocketClient(socket, dialled.traffic), this.#options, log)
  }
}

/** The plain MQTT port. */
export class MqttEndpoint {
  readonly #broker: Broker
  readonly #options: TunnelOptions
  readonly #tunnels: Tunnels

  constructor(broker: Broker, options: TunnelOptions, tunnels: Tunnels) {
    this.#broker = broker
    this.#options = options
    this.#tunnels = tunnels
  }

  /**
   * Resolves when the tunnel has started, or the client is gone.
   *
   * @throws {GatewayError} as `Tunnels.dial`; the caller closes the socket then
   */
  async accept(socket: Socket, peer: Peer, log: ConnectionLog): Promise<void> {
    const dialled = await this.#tunnels.dial(this.#broker, peer, 'tcp')
    if (socket.destroyed) dialled.abandon()
    else dialled.carry(new TcpClient(socket), this.#options, log)
  }
}
