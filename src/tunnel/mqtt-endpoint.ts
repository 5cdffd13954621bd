import type { Socket } from 'node:net'
import type { Broker, Peer } from '../broker/broker.js'
import { Ending } from '../endings.js'
import type { Logger } from '../log.js'
import type { Metrics } from '../metrics.js'
import { TcpClient } from './client.js'
import type { TunnelOptions } from './tunnel.js'
import type { Tunnels } from './tunnels.js'

/** The plain MQTT port's end of the tunnels: the same carrying, without WebSocket around it. */
export class MqttEndpoint {
  readonly #broker: Broker
  readonly #options: TunnelOptions
  readonly #tunnels: Tunnels
  readonly #metrics: Metrics

  constructor(broker: Broker, options: TunnelOptions, tunnels: Tunnels, metrics: Metrics) {
    this.#broker = broker
    this.#options = options
    this.#tunnels = tunnels
    this.#metrics = metrics
  }

  /** Takes over a connection. MQTT has no way to say why before a CONNECT, so what is refused is closed. */
  async accept(socket: Socket, peer: Peer, log: Logger): Promise<void> {
    try {
      const dialled = await this.#tunnels.dial(this.#broker, peer, 'tcp')
      if (socket.destroyed) dialled.abandon()
      else dialled.carry(() => new TcpClient(socket), this.#options, log)
    } catch (error) {
      const ending = Ending.from(error)
      this.#metrics.refused(ending.reason)
      log[ending.level]({ reason: ending.reason, err: ending.cause }, ending.text)
      socket.destroy()
    }
  }
}
