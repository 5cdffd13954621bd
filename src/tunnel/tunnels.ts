import { onExpired } from '../access/expiry.js'
import type { ConnectionLog } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import { type Metrics, noTraffic, type Traffic, type Transport } from '../base/metrics.js'
import type { Broker, BrokerStream, Peer } from '../broker/broker.js'
import type { Client } from './client.js'
import { ThrottledClient } from './throttled-client.js'
import { Tunnel, type TunnelOptions } from './tunnel.js'

/** An open broker connection, for a tunnel to a client. */
export interface Dialled {
  /** The counters of the connection. */
  readonly traffic: Traffic
  /** Starts the tunnel. */
  carry(client: Client, options: TunnelOptions, log: ConnectionLog): void
  /** Closes the broker connection: the client left before its tunnel started. */
  abandon(): void
}

/** The part of the grace period over which the tunnels are closed one after the other. */
const staggerPart = 0.5

/** All open tunnels: opens, counts and closes them. */
export class Tunnels {
  readonly #metrics: Metrics
  readonly #bytesPerSecond: number | 'off'
  readonly #open = new Set<Tunnel>()
  #closing = false
  /** Called when the last tunnel has ended. */
  #onEmpty: () => void = () => {}

  /** @param bytesPerSecond of each tunnel, in each direction */
  constructor(metrics: Metrics, bytesPerSecond: number | 'off' = 'off') {
    this.#metrics = metrics
    this.#bytesPerSecond = bytesPerSecond
  }

  /** The number of open tunnels. */
  get size(): number {
    return this.#open.size
  }

  /** Bytes buffered for all of them. */
  get bufferedBytes(): number {
    let sum = 0
    for (const tunnel of this.#open) sum += tunnel.bufferedBytes
    return sum
  }

  /**
   * Connects to the broker for a client, whose tunnel ends when its identity expires.
   *
   * @throws {GatewayError} as `Broker.open`, and `shutting-down`
   */
  async dial(broker: Broker, peer: Peer, transport: Transport): Promise<Dialled> {
    if (this.#closing) throw new GatewayError('shutting-down')
    const traffic = noTraffic()
    const setState = this.#metrics.trackConnection(transport, traffic)
    setState('opening')
    const { identity } = peer
    const startedAt = performance.now()
    let stream: BrokerStream
    try {
      stream = await broker.open(peer)
    } catch (error) {
      setState('ended')
      throw GatewayError.from(error)
    }
    this.#metrics.upstreamConnected((performance.now() - startedAt) / 1000)
    // Until `carry` there is no other listener, and an 'error' without one would end the process.
    stream.on('error', () => {})
    const abandon = (): void => {
      setState('ended')
      stream.destroy()
    }
    if (this.#closing) {
      abandon()
      throw new GatewayError('shutting-down')
    }
    return {
      traffic,
      abandon,
      carry: (client, options, log) => {
        let cancelExpiry: (() => void) | undefined
        const tunnel = new Tunnel({
          client: this.#throttled(client),
          broker: stream,
          brokerName: broker.name,
          options,
          traffic,
          metrics: this.#metrics,
          setState,
          log,
          onEnded: () => {
            cancelExpiry?.()
            this.#remove(tunnel)
          },
        })
        this.#open.add(tunnel)
        if (identity) cancelExpiry = onExpired(identity, reason => tunnel.end(reason))
      },
    }
  }

  /**
   * Ends all tunnels with `shutting-down`, spread over the first half of `grace` milliseconds so that their clients do not all reconnect at
   * once; destroys the others after `grace`. No new tunnel opens from now on.
   */
  async close(grace: number): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    if (this.#open.size === 0) return
    const emptied = new Promise<void>(resolve => {
      this.#onEmpty = resolve
    })
    const open = [...this.#open]
    const step = Math.min(10, (grace * staggerPart) / open.length)
    const timers = open.map((tunnel, i) => setTimeout(() => tunnel.end(new GatewayError('shutting-down')), i * step))
    timers.push(setTimeout(() => this.#destroyAll(), grace))
    await emptied
    for (const timer of timers) clearTimeout(timer)
  }

  #throttled(client: Client): Client {
    const bytesPerSecond = this.#bytesPerSecond
    if (bytesPerSecond === 'off') return client
    return new ThrottledClient(client, { bytesPerSecond, onPause: this.#metrics.throttled })
  }

  #destroyAll(): void {
    for (const tunnel of this.#open) tunnel.destroy(new GatewayError('shutting-down'))
  }

  #remove(tunnel: Tunnel): void {
    this.#open.delete(tunnel)
    if (this.#open.size === 0) this.#onEmpty()
  }
}
