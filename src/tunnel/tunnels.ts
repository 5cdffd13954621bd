import { onExpired } from '../access/expiry.js'
import type { ConnectedClients } from '../base/connected-clients.js'
import type { ConnectionLog } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import { type Metrics, noTraffic, type Traffic, type Transport } from '../base/metrics.js'
import type { TimeSlicer } from '../base/time-slicer.js'
import type { Broker, BrokerStream, Peer } from '../broker/broker.js'
import type { Client } from './client.js'
import { ThrottledClient } from './throttled-client.js'
import { Tunnel, type TunnelOptions } from './tunnel.js'
import { TunnelClient } from './tunnel-client.js'

export interface TunnelRequest {
  readonly broker: Broker
  readonly peer: Peer
  readonly transport: Transport
  /** Of the WebSocket. */
  readonly path?: string | undefined
  readonly options: TunnelOptions
  readonly log: ConnectionLog
}

/** Why the configuration no longer allows a tunnel; `undefined` if it does. */
export type RefusalOf = (request: TunnelRequest) => GatewayError | undefined

/** The part of the grace period over which the tunnels are closed one after the other. */
const staggerPart = 0.5

/** All open tunnels: opens, counts and closes them. */
export class Tunnels {
  readonly #metrics: Metrics
  #bytesPerSecond: number | 'off'
  readonly #clients: Pick<ConnectedClients, 'connected' | 'disconnected'> | undefined
  readonly #open = new Map<Tunnel, TunnelRequest>()
  /** Brokers with an open tunnel, or one that is being opened. */
  readonly #uses = new Map<Broker, { tunnels: number; readonly onUnused: (() => void)[] }>()
  #refusalOf: RefusalOf = () => undefined
  #closing = false
  /** Called when the last tunnel has ended. */
  #onEmpty: () => void = () => {}

  /**
   * @param bytesPerSecond of each tunnel, in each direction
   * @param clients lists the clients of tunnels whose CONNECT is inspected
   */
  constructor(
    metrics: Metrics,
    bytesPerSecond: number | 'off' = 'off',
    clients?: Pick<ConnectedClients, 'connected' | 'disconnected'>,
  ) {
    this.#metrics = metrics
    this.#bytesPerSecond = bytesPerSecond
    this.#clients = clients
  }

  get size(): number {
    return this.#open.size
  }

  /** @param bytesPerSecond of each tunnel that opens from now on */
  configure(bytesPerSecond: number | 'off'): void {
    this.#bytesPerSecond = bytesPerSecond
  }

  /**
   * Ends the tunnels that the configuration no longer allows, also those that are being opened: to be called when it has changed.
   *
   * @param refusalOf why a tunnel ends; `undefined` if it stays
   */
  async review(refusalOf: RefusalOf, slicer: TimeSlicer): Promise<void> {
    this.#refusalOf = refusalOf
    await slicer.next('clients')
    // A map may change while it is iterated.
    for (const [tunnel, request] of this.#open) {
      if (slicer.isOver) await slicer.next('clients')
      const refusal = this.#open.has(tunnel) ? refusalOf(request) : undefined
      if (!refusal) continue
      tunnel.end(refusal)
      slicer.endedConnection()
    }
  }

  /** Resolves when no tunnel of this broker is open, or being opened. */
  unused(broker: Broker): Promise<void> {
    const use = this.#uses.get(broker)
    return use ? new Promise(resolve => use.onUnused.push(resolve)) : Promise.resolve()
  }

  #use(broker: Broker): void {
    const use = this.#uses.get(broker)
    if (use) use.tunnels += 1
    else this.#uses.set(broker, { tunnels: 1, onUnused: [] })
  }

  #unuse(broker: Broker): void {
    const use = this.#uses.get(broker)
    if (!use) return
    use.tunnels -= 1
    if (use.tunnels > 0) return
    this.#uses.delete(broker)
    for (const onUnused of use.onUnused) onUnused()
  }

  /** Bytes buffered for all of them. */
  get bufferedBytes(): number {
    let sum = 0
    for (const tunnel of this.#open.keys()) sum += tunnel.bufferedBytes
    return sum
  }

  /**
   * Connects to the broker and starts the client's tunnel, which ends when its identity expires.
   *
   * @param connectClient called when the broker is connected; `undefined` if the client has left
   * @throws {GatewayError} as `Broker.open`, and `shutting-down`
   */
  async open(request: TunnelRequest, connectClient: (traffic: Traffic) => Client | undefined): Promise<void> {
    const { broker, peer, transport, path, options, log } = request
    if (this.#closing) throw new GatewayError('shutting-down')
    this.#use(broker)
    const traffic = noTraffic()
    const setState = this.#metrics.trackConnection(transport, traffic)
    setState('opening')
    const startedAt = performance.now()
    let stream: BrokerStream
    try {
      stream = await broker.open(peer)
    } catch (error) {
      setState('ended')
      this.#unuse(broker)
      throw GatewayError.from(error)
    }
    this.#metrics.upstreamConnected((performance.now() - startedAt) / 1000)
    // An 'error' without a listener would end the process.
    stream.on('error', () => {})
    const client = this.#closing ? undefined : connectClient(traffic)
    if (client === undefined) {
      setState('ended')
      this.#unuse(broker)
      stream.destroy()
      if (this.#closing) throw new GatewayError('shutting-down')
      return
    }
    let cancelExpiry: (() => void) | undefined
    let connected: TunnelClient | undefined
    const tunnel: Tunnel = new Tunnel({
      ...{ broker: stream, brokerName: broker.name, options, traffic, setState, log },
      client: this.#throttled(client),
      metrics: this.#metrics,
      onConnected: facts => {
        connected = new TunnelClient({ tunnel, stream, facts, peer, transport, path, broker: broker.name, traffic })
        this.#clients?.connected(connected)
      },
      onEnding: reason => {
        if (connected) this.#clients?.disconnected(connected, reason)
      },
      onEnded: () => {
        cancelExpiry?.()
        this.#remove(tunnel)
        this.#unuse(broker)
      },
    })
    this.#open.set(tunnel, request)
    if (peer.identity) cancelExpiry = onExpired(peer.identity, reason => tunnel.end(reason))
    const refusal = this.#refusalOf(request)
    if (refusal) tunnel.end(refusal)
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
    const open = [...this.#open.keys()]
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
    for (const tunnel of this.#open.keys()) tunnel.destroy(new GatewayError('shutting-down'))
  }

  #remove(tunnel: Tunnel): void {
    this.#open.delete(tunnel)
    if (this.#open.size === 0) this.#onEmpty()
  }
}
