import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Server, WebSocket, WebSocketServer } from 'ws'
import type { Broker, Peer } from '../broker/broker.js'
import { Ending } from '../endings.js'
import type { Logger } from '../log.js'
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
  readonly log: Logger
  /** Answers with the ending's HTTP status and ends the connection. */
  refuse(ending: Ending, headers?: Record<string, string>): void
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
  /** `ws` knows a handshake by its request alone. */
  readonly #handshakes = new WeakMap<IncomingMessage, Handshake>()

  constructor(options: WebSocketEndpointOptions, tunnels: Tunnels) {
    this.#options = options
    this.#tunnels = tunnels
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      // Compression would cost memory for each connection, and time on bytes that are tiny or compressed already.
      perMessageDeflate: false,
      WebSocket: TunnelSocket,
      handleProtocols: offered => this.#choose(offered) ?? false,
      // Asked once `ws` has found the handshake valid, and before it answers.
      verifyClient: ({ req }, accept) => this.#verify(req, accept),
    })
    this.#server.on('wsClientError', (error, _socket, request) => this.#refuseInvalid(request, error))
    this.#server.on('headers', (headers, request) => this.#addForcedSubprotocol(headers, request))
  }

  /**
   * Takes over an upgrade request and answers it: with a tunnel, or with `upgrade.refuse`. Resolves when that is done.
   */
  async accept(upgrade: UpgradeRequest): Promise<void> {
    const handshake: Handshake = { upgrade, connection: undefined, opening: undefined }
    this.#handshakes.set(upgrade.request, handshake)
    this.#server.handleUpgrade(upgrade.request, upgrade.socket, upgrade.head, ({ connection }) => {
      handshake.connection = connection
    })
    await handshake.opening
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
      this.#checkSubprotocol(request)
      dialled = await this.#tunnels.dial(this.#options.broker, peer, 'websocket')
    } catch (error) {
      const ending = Ending.from(error)
      return refuse(ending, ending.reason === 'unsupported-version' ? { 'Sec-WebSocket-Version': '13' } : undefined)
    }
    accept(true)
    const { connection } = handshake
    // Gone while the broker was dialled: `ws` has destroyed the socket then.
    if (!connection) return dialled.abandon()
    log.setBindings({ subprotocol: this.#answered(request) })
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
    this.#handshakes.get(request)?.upgrade.refuse(new Ending('bad-handshake', { hint: error.message }))
  }

  /** `ws` also takes version 8, whose browsers name their origin in another header, which nobody has checked. */
  #checkVersion(request: IncomingMessage): void {
    if (request.headers['sec-websocket-version'] !== '13') throw new Ending('unsupported-version')
  }

  #checkSubprotocol(request: IncomingMessage): void {
    const { subprotocols, requireSubprotocol } = this.#options
    const offered = offeredSubprotocols(request)
    if (this.#choose(offered) !== undefined) return
    const hint = `offer ${subprotocols.join(' or ')}`
    if (offered.size > 0) throw new Ending('unsupported-subprotocol', { hint })
    if (requireSubprotocol) throw new Ending('subprotocol-required', { hint })
  }

  #choose(offered: Set<string>): string | undefined {
    const { subprotocols, forceSubprotocol } = this.#options
    return forceSubprotocol ?? [...offered].find(name => subprotocols.includes(name))
  }

  #answered(request: IncomingMessage): string | undefined {
    return this.#choose(offeredSubprotocols(request))
  }

  /** `ws` names a subprotocol only to clients that offer one. */
  #addForcedSubprotocol(headers: string[], request: IncomingMessage): void {
    const { forceSubprotocol } = this.#options
    if (forceSubprotocol === undefined || offeredSubprotocols(request).size > 0) return
    headers.push(`Sec-WebSocket-Protocol: ${forceSubprotocol}`)
  }
}

/** The subprotocols that a valid handshake offers, in its order of preference (RFC 6455 §4.1). */
function offeredSubprotocols(request: IncomingMessage): Set<string> {
  const header = request.headers['sec-websocket-protocol']
  return new Set(header?.split(',').map(name => name.trim()))
}
