import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { GatewayError } from '../../base/errors.js'
import type { Upgrade } from '../../http/upgrade-route.js'

/** One WebSocket that is open. */
export interface OpenSocket {
  /** Bytes that wait for the client. */
  readonly bufferedBytes: number
  /** Says good-bye, and why. */
  end(ending: GatewayError): void
  /** Cuts it off. */
  destroy(): void
}

export interface WebSocketsOptions {
  /** Bytes of one message. */
  readonly maxPayload: number
  /** The subprotocol that is spoken where a client offers it; left out for none. */
  readonly subprotocol?: string
}

/** The WebSockets of one endpoint, from the handshake to the end of all. */
export class WebSockets {
  readonly #server: WebSocketServer
  readonly #open = new Set<OpenSocket>()
  /** What `ws` finds wrong with a handshake is said by whoever led it here. */
  readonly #handshakes = new WeakMap<IncomingMessage, Upgrade>()
  #closing: Promise<void> | undefined
  /** Called when the last one has closed. */
  #emptied: () => void = () => {}

  constructor({ maxPayload, subprotocol }: WebSocketsOptions) {
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      // Compression would cost memory for each connection, and each would have bytes of its own.
      perMessageDeflate: false,
      maxPayload,
      // Those who ask and never read would fill the memory with answers.
      autoPong: false,
      handleProtocols: offered => (subprotocol !== undefined && offered.has(subprotocol) ? subprotocol : false),
    })
    this.#server.on('wsClientError', (error, _socket, request) => {
      this.#handshakes.get(request)?.refuse(new GatewayError('bad-handshake', { hint: error.message }))
    })
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size
  }

  /** Bytes that wait for clients. */
  get bufferedBytes(): number {
    let bytes = 0
    for (const socket of this.#open) bytes += socket.bufferedBytes
    return bytes
  }

  /**
   * Answers a handshake.
   *
   * @param make makes of the WebSocket, and of what it stands on, what speaks over it; what it throws is told in the close
   *   frame
   * @throws {Ending} `shutting-down`
   */
  accept(upgrade: Upgrade, make: (webSocket: WebSocket, connection: Duplex) => OpenSocket): void {
    if (this.#closing) throw new GatewayError('shutting-down')
    const { request, socket, head, log } = upgrade
    this.#handshakes.set(request, upgrade)
    this.#server.handleUpgrade(request, socket, head, webSocket => {
      try {
        this.#keep(webSocket, make(webSocket, socket))
      } catch (error) {
        // After the 101 there is no answer but the end.
        const { closeCode, text, level, logFields, detailedText } = GatewayError.from(error)
        log[level](logFields, detailedText)
        webSocket.close(closeCode, text)
      }
    })
  }

  #keep(webSocket: WebSocket, opened: OpenSocket): void {
    this.#open.add(opened)
    webSocket.once('close', () => {
      this.#open.delete(opened)
      if (this.#open.size === 0) this.#emptied()
    })
  }

  /**
   * Ends all that are open. Idempotent.
   *
   * @param grace milliseconds after which those that have not closed are cut off
   */
  close(grace: number): Promise<void> {
    this.#closing ??= this.#endAll(grace)
    return this.#closing
  }

  async #endAll(grace: number): Promise<void> {
    for (const socket of this.#open) socket.end(new GatewayError('shutting-down'))
    if (this.#open.size === 0) return
    const emptied = new Promise<void>(resolve => {
      this.#emptied = resolve
    })
    const overdue = setTimeout(() => {
      for (const socket of this.#open) socket.destroy()
    }, grace)
    await emptied
    clearTimeout(overdue)
  }
}

/** The subprotocols that a handshake offers, without those that carry a token. */
export function offeredBy({ headers }: IncomingMessage): string[] {
  const header = headers['sec-websocket-protocol']
  const offered = header === undefined ? [] : header.split(',').map(name => name.trim())
  return offered.filter(name => !name.startsWith('bearer.'))
}
