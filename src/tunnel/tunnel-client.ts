import type { ClientSession, ConnectedClient } from '../base/connected-clients.js'
import type { GatewayError } from '../base/errors.js'
import type { Traffic, Transport } from '../base/metrics.js'
import type { BrokerStream, Peer } from '../broker/broker.js'
import type { ConnectFacts } from './connect-inspector.js'
import type { Tunnel } from './tunnel.js'

export interface TunnelClientParts {
  readonly tunnel: Tunnel
  readonly stream: BrokerStream
  readonly facts: ConnectFacts
  readonly peer: Peer
  readonly transport: Transport
  readonly path: string | undefined
  readonly broker: string
  readonly traffic: Traffic
}

/** The client of a tunnel whose CONNECT the broker has accepted. */
export class TunnelClient implements ConnectedClient {
  readonly clientId: string
  readonly user: string | undefined
  readonly since = Date.now()
  readonly #parts: TunnelClientParts

  constructor(parts: TunnelClientParts) {
    this.#parts = parts
    // The built-in broker assigns a client id before MQTT 5, too. It forgets the client when the connection ends.
    const session = parts.stream.clientSession?.()
    this.clientId = parts.facts.clientId || (session?.clientId ?? '')
    this.user = session?.user ?? parts.peer.identity?.user
  }

  get connection(): string {
    return this.#parts.peer.connection ?? ''
  }

  get username(): string | undefined {
    return this.#parts.facts.username
  }

  get address(): string {
    return this.#parts.peer.address
  }

  get protocolVersion(): number | undefined {
    return this.#parts.facts.protocolVersion
  }

  get transport(): Transport {
    return this.#parts.transport
  }

  get path(): string | undefined {
    return this.#parts.path
  }

  get broker(): string {
    return this.#parts.broker
  }

  get traffic(): Traffic {
    return this.#parts.traffic
  }

  get bufferedBytes(): number {
    return this.#parts.tunnel.bufferedBytes
  }

  get session(): ClientSession | undefined {
    return this.#parts.stream.clientSession?.()
  }

  end(reason: GatewayError): void {
    this.#parts.tunnel.disconnect(reason)
  }
}
