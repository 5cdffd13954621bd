import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Server, WebSocket, WebSocketServer } from 'ws'
import type { ConnectionLog } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import type { Broker, Peer } from '../broker/broker.js'
import type { TunnelOptions } from './tunnel.js'
import type { Dialled, Tunnels } from './tunnels.js'
import { WebSocketClient } from './websocket-client.js'

/** An upgrade request that has passed the gateway's own checks: path, origin, limits. */
export interface UpgradeRequest {
  readonly request: IncomingMessage
  readonly socket: Duplex
  /** What the client has already sent after its request. */
  readonly head: Buffer
  readonly peer: Peer
  readonly log: ConnectionLog
  /** Answers with the ending's HTTP status and ends the connection. */
  refuse(ending: GatewayError, headers?: Record<string, string>): void
}

/** What an endpoint speaks and where it leads. */
export interface WebSocketEndpointOptions extends TunnelOptions {
  readonly broker: Broker
  /** What may be spoken; the client's order of preference counts. */
  readonly subprotocols: readonly string[]
  readonly requireSubprotocol: boolean
  /** Answered whatever the client offers. */
  readonly forceSubprotocol: string | undefined
}

/** What the WebSocket handshake leaves behind: the connection, upgraded, nothing of it consumed. */
class TunnelSocket extends WebSocket {
  connection: Duplex | undefined

  /** Called by `ws` when it has sent the 101: instead of reading frames, it only keeps the connection. */
  setSocket(socket: Duplex, head: Buffer): void {
    if (head.length > 0) socket.unshift(head)
    if (socket instanceof Socket) {
      socket.setTimeout(0)
      // What is small here is a whole MQTT packet that somebody waits for, never a part of something larger.
      socket.setNoDelay(true)
    }
    this.connection = socket
  }
}

/** One upgrade request on its way through `ws`. */
interface Handshake {
  readonly upgrade: UpgradeRequest
  /** What will be answered. */
  subprotocol: string | undefined
  connection: Duplex | undefined
  /** Settles when a valid handshake has been answered. */
  opening: Promise<void> | undefined
}

/**
 * One WebSocket endpoint for MQTT: `ws` does the handshake (RFC 6455 §4.2), the broker is dialled before the 101, and a
 * tunnel does the rest.
 */
export class WebSocketEndpoint {
  readonly #options: WebSocketEndpointOptions
  readonly #tunnels: Tunnels
  readonly #server: Server<typeof TunnelSocket>
  /** Those that are not answered yet: `ws` knows a handshake by its request alone. */
  readonly #handshakes = new Map<IncomingMessage, Handshake>()

  constructor(options: WebSocketEndpointOptions, tunnels: Tunnels) {
    this.#options = options
    this.#tunnels = tunnels
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      // Compression would cost memory for each connection, and time on bytes that are tiny or compressed already.
      perMessageDeflate: false,
      WebSocket: TunnelSocket,
      handleProtocols: (_offered, request) => this.#handshakes.get(request)?.subprotocol ?? false,
      // Asked once `ws` has found the handshake valid, and before it answers.
      verifyClient: ({ req }, accept) => this.#verify(req, accept),
    })
    this.#server.on('wsClientError', (error, _socket, request) => this.#refuseInvalid(request, error))
    this.#server.on('headers', (headers, request) => this.#addForcedSubprotocol(headers, request))
  }

  /**
   * Whether a valid handshake offers what is spoken here.
   *
   * @throws {Ending} `unsupported-subprotocol`, `subprotocol-required`
   */
  check(request: IncomingMessage): void {
    this.#chooseSubprotocol(request)
  }

  /**
   * Takes over an upgrade request and answers it: with a tunnel, or with `upgrade.refuse`. Resolves when that is done.
   */
  async accept(upgrade: UpgradeRequest): Promise<void> {
    const handshake: Handshake = { upgrade, subprotocol: undefined, connection: undefined, opening: undefined }
    this.#handshakes.set(upgrade.request, handshake)
    try {
      this.#server.handleUpgrade(upgrade.request, upgrade.socket, upgrade.head, ({ connection }) => {
        handshake.connection = connection
      })
      await handshake.opening
    } finally {
      this.#handshakes.delete(upgrade.request)
    }
  }

  #verify(request: IncomingMessage, accept: (verified: boolean) => void): void {
    const handshake = this.#handshakes.get(request)
    if (handshake) handshake.opening = this.#open(handshake, accept)
    else accept(false)
  }

  async #open(handshake: Handshake, accept: (verified: boolean) => void): Promise<void> {
    const { request, peer, log, refuse } = handshake.upgrade
    let dialled: Dialled
    try {
      this.#checkVersion(request)
      handshake.subprotocol = this.#chooseSubprotocol(request)
      dialled = await this.#tunnels.dial(this.#options.broker, peer, 'websocket')
    } catch (error) {
      const ending = GatewayError.from(error)
      return refuse(ending, ending.reason === 'unsupported-version' ? { 'Sec-WebSocket-Version': '13' } : undefined)
    }
    accept(true)
    const { connection, subprotocol } = handshake
    // Gone while the broker was dialled: `ws` has destroyed the socket then.
    if (!connection) return dialled.abandon()
    log.setBindings({ subprotocol })
    try {
      dialled.carry(traffic => new WebSocketClient(connection, traffic), this.#options, log)
    } catch (error) {
      // After the 101 there is no answer but the end.
      log.error({ err: error }, 'a tunnel could not begin')
      connection.destroy()
      dialled.abandon()
    }
  }

  #refuseInvalid(request: IncomingMessage, error: Error): void {
    this.#handshakes.get(request)?.upgrade.refuse(new GatewayError('bad-handshake', { hint: error.message }))
  }

  /** `ws` also takes version 8, whose browsers name their origin in another header, which nobody has checked. */
  #checkVersion(request: IncomingMessage): void {
    if (request.headers['sec-websocket-version'] !== '13') throw new GatewayError('unsupported-version')
  }

  /** What is answered: the first offer that is spoken here, or what `forceSubprotocol` says. */
  #chooseSubprotocol(request: IncomingMessage): string | undefined {
    const { subprotocols, requireSubprotocol, forceSubprotocol } = this.#options
    if (forceSubprotocol !== undefined) return forceSubprotocol
    const offered = offeredSubprotocols(request)
    const chosen = offered.find(name => subprotocols.includes(name))
    if (chosen !== undefined) return chosen
    const hint = `offer ${subprotocols.join(' or ')}`
    if (offered.length > 0) throw new GatewayError('unsupported-subprotocol', { hint })
    if (requireSubprotocol) throw new GatewayError('subprotocol-required', { hint })
    return undefined
  }

  /** `ws` names a subprotocol only to clients that offer one. */
  #addForcedSubprotocol(headers: string[], request: IncomingMessage): void {
    const { forceSubprotocol } = this.#options
    if (forceSubprotocol === undefined || offeredSubprotocols(request).length > 0) return
    headers.push(`Sec-WebSocket-Protocol: ${forceSubprotocol}`)
  }
}

/** The subprotocols that a valid handshake offers, in its order of preference (RFC 6455 §4.1). */
function offeredSubprotocols(request: IncomingMessage): string[] {
  const header = request.headers['sec-websocket-protocol']
  return header === undefined ? [] : header.split(',').map(name => name.trim())
}
