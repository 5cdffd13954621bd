import { onOver } from '../access/expiry.js'
import type { ConnectionLog } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import { type Metrics, noTraffic, type Traffic, type Transport } from '../base/metrics.js'
import type { Broker, BrokerStream, Peer } from '../broker/broker.js'
import type { Client } from './client.js'
import { PacedClient } from './paced-client.js'
import { Tunnel, type TunnelOptions } from './tunnel.js'

/** A broker connection that waits for its client to be ready. */
export interface Dialled {
  /** Makes the tunnel. `makeClient` gets where its frames are to be counted. */
  carry(makeClient: (traffic: Traffic) => Client, options: TunnelOptions, log: ConnectionLog): void
  /** The client is gone before its tunnel began. */
  abandon(): void
}

/** How long the endings of all tunnels are spread, as a part of the time that there is. */
const staggerPart = 0.5

/** All open tunnels: opens them, counts them, ends them together. */
export class Tunnels {
  readonly #metrics: Metrics
  readonly #bytesPerSecond: number | 'off'
  readonly #open = new Set<Tunnel>()
  #closing = false
  #idle: () => void = () => {}

  /** @param bytesPerSecond of each tunnel, each way */
  constructor(metrics: Metrics, bytesPerSecond: number | 'off' = 'off') {
    this.#metrics = metrics
    this.#bytesPerSecond = bytesPerSecond
  }

  /** How many tunnels are open. */
  get size(): number {
    return this.#open.size
  }

  /** What waits in memory for all of them, in bytes. */
  get bufferedBytes(): number {
    let sum = 0
    for (const tunnel of this.#open) sum += tunnel.bufferedBytes
    return sum
  }

  /**
   * Opens the broker's side for a client. Its tunnel ends with `identity-expired` when what proved who it is holds no longer.
   *
   * @throws {Ending} what `Broker.open` rejects with, or `shutting-down`
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
    // Between here and `carry` nobody else listens, and an 'error' without a listener would end the process.
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
      abandon,
      carry: (makeClient, options, log) => {
        let stopWaiting: (() => void) | undefined
        const tunnel = new Tunnel({
          client: this.#paced(makeClient(traffic)),
          broker: stream,
          brokerName: broker.name,
          options,
          traffic,
          metrics: this.#metrics,
          setState,
          log,
          onEnded: () => {
            stopWaiting?.()
            this.#remove(tunnel)
          },
        })
        this.#open.add(tunnel)
        if (identity) stopWaiting = onOver(identity, ending => tunnel.end(ending))
      },
    }
  }

  /**
   * Ends all tunnels with `shutting-down`, spread over the first half of `grace` milliseconds so that their clients do
   * not all come back at once; what is left after `grace` is destroyed. Opens no new ones from now on.
   */
  async close(grace: number): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    if (this.#open.size === 0) return
    const idle = new Promise<void>(resolve => {
      this.#idle = resolve
    })
    const open = [...this.#open]
    const step = Math.min(10, (grace * staggerPart) / open.length)
    const timers = open.map((tunnel, i) => setTimeout(() => tunnel.end(new GatewayError('shutting-down')), i * step))
    timers.push(setTimeout(() => this.#destroyAll(), grace))
    await idle
    for (const timer of timers) clearTimeout(timer)
  }

  #paced(client: Client): Client {
    const bytesPerSecond = this.#bytesPerSecond
    if (bytesPerSecond === 'off') return client
    return new PacedClient(client, { bytesPerSecond, onPause: this.#metrics.throttled })
  }

  #destroyAll(): void {
    for (const tunnel of this.#open) tunnel.destroy(new GatewayError('shutting-down'))
  }

  #remove(tunnel: Tunnel): void {
    this.#open.delete(tunnel)
    if (this.#open.size === 0) this.#idle()
  }
}
