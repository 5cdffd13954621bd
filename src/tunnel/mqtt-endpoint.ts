import type { Socket } from 'node:net'
import type { ConnectionLog } from '../base/connection-log.js'
import type { Broker, Peer } from '../broker/broker.js'
import { TcpClient } from './client.js'
import type { TunnelOptions } from './tunnel.js'
import type { Tunnels } from './tunnels.js'

/** The plain MQTT port's end of the tunnels: the same carrying, without WebSocket around it. */
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
   * Takes over a connection; resolves when its tunnel has begun, or when it is gone already.
   *
   * @throws {Ending} when the broker cannot be reached; the connection is the caller's to close then
   */
  async accept(socket: Socket, peer: Peer, log: ConnectionLog): Promise<void> {
    const dialled = await this.#tunnels.dial(this.#broker, peer, 'tcp')
    if (socket.destroyed) dialled.abandon()
    else dialled.carry(() => new TcpClient(socket), this.#options, log)
  }
}
