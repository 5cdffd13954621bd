import { type WebSocket, WebSocketServer } from 'ws'
import { GatewayError } from '../../base/errors.js'
import type { BodySender } from '../../http/body-budget.js'
import type { BodyLimits } from '../../http/buffered-bodies.js'
import type { Upgrade, UpgradeRoute } from '../../http/upgrade-route.js'
import { closeReason } from '../../websocket/frame-writer.js'
import { SocketWriter, type SocketWriterListener } from './socket-writer.js'

export interface OpenSocket {
  /** Bytes buffered for the client. */
  readonly bufferedBytes: number
  /** Sends the reason, and closes. */
  end(reason: GatewayError): void
  /** Closes the connection at once. */
  destroy(): void
}

/** A WebSocket endpoint of the push side; its handshakes are admitted before. */
export interface SocketEndpoint
  extends Pick<UpgradeRoute, 'matches' | 'isEverywhere' | 'chooseSubprotocol' | 'check' | 'checkQuery' | 'accept'> {
  /** Open WebSockets. */
  readonly size: number
  /** Bytes that are queued for clients. */
  readonly bufferedBytes: number
  /**
   * Ends all open WebSockets. Idempotent.
   *
   * @param grace milliseconds after which open connections are destroyed
   */
  close(grace: number): Promise<void>
}

export interface WebSocketsOptions {
  readonly bodies: Pick<BodyLimits, 'budget' | 'timeout'>
  /** Milliseconds until a close frame has to be answered. */
  readonly closeTimeout: number
  /** Bytes of one message. */
  readonly maxPayload: number
}

export class WebSockets {
  readonly #server: WebSocketServer
  readonly #options: WebSocketsOptions
  readonly #open = new Set<OpenSocket>()
  #closing: Promise<void> | undefined
  /** Called when the last one has closed. */
  #onEmpty: () => void = () => {}

  constructor(options: WebSocketsOptions) {
    const { maxPayload } = options
    this.#options = options
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      // Compression would cost memory for each connection, and none could share its bytes with another.
      perMessageDeflate: false,
      maxPayload,
      // A client that pings and never reads would fill the memory with pongs.
      autoPong: false,
    })
  }

  get size(): number {
    return this.#open.size
  }

  /** Bytes buffered for clients. */
  get bufferedBytes(): number {
    let bytes = 0
    for (const socket of this.#open) bytes += socket.bufferedBytes
    return bytes
  }

  /**
   * Completes a handshake.
   *
   * @param open starts the connection with the writer that it creates; an error of it is sent in the close frame
   * @throws {GatewayError} `shutting-down`
   */
  accept(
    upgrade: Upgrade,
    sender: BodySender,
    open: (createWriter: (listener: SocketWriterListener) => SocketWriter) => OpenSocket,
  ): void {
    if (this.#closing) throw new GatewayError('shutting-down')
    const { request, socket, head, subprotocol, log } = upgrade
    // `ws` refuses empty list elements (RFC 9110 §5.6.1.2), and chooses the first subprotocol.
    request.headers.upgrade = 'websocket'
    if (subprotocol === undefined) delete request.headers['sec-websocket-protocol']
    else request.headers['sec-websocket-protocol'] = subprotocol
    this.#server.handleUpgrade(request, socket, head, webSocket => {
      const { bodies, closeTimeout } = this.#options
      const held = bodies.budget.open(sender)
      const writer = { webSocket, connection: socket, held, messageTimeout: bodies.timeout, closeTimeout }
      try {
        this.#add(
          webSocket,
          open(listener => new SocketWriter(writer, listener)),
        )
      } catch (error) {
        // After the 101 the only response is a close frame.
        const { closeCode, text, level, logFields, detailedText } = GatewayError.from(error)
        log[level](logFields, detailedText)
        webSocket.close(closeCode, closeReason(text))
      }
    })
  }

  #add(webSocket: WebSocket, opened: OpenSocket): void {
    this.#open.add(opened)
    webSocket.once('close', () => {
      this.#open.delete(opened)
      if (this.#open.size === 0) this.#onEmpty()
    })
  }

  /**
   * Ends all open WebSockets. Idempotent.
   *
   * @param grace milliseconds after which the others are destroyed
   */
  close(grace: number): Promise<void> {
    this.#closing ??= this.#endAll(grace)
    return this.#closing
  }

  async #endAll(grace: number): Promise<void> {
    for (const socket of this.#open) socket.end(new GatewayError('shutting-down'))
    if (this.#open.size === 0) return
    const emptied = new Promise<void>(resolve => {
      this.#onEmpty = resolve
    })
    const timer = setTimeout(() => {
      for (const socket of this.#open) socket.destroy()
    }, grace)
    await emptied
    clearTimeout(timer)
  }
}

/**
 * Chooses the one subprotocol that is spoken, where it is offered; `undefined` for none.
 *
 * @param supported left out for none
 * @throws {GatewayError} `unsupported-subprotocol`
 */
export function chooseSubprotocol(offered: readonly string[], supported?: string): string | undefined {
  if (supported !== undefined && offered.includes(supported)) return supported
  // Browsers can send a token only as a subprotocol.
  if (offered.every(name => name.startsWith('bearer.'))) return undefined
  throw new GatewayError('unsupported-subprotocol', {
    hint: supported === undefined ? 'offer none' : `offer ${supported}, or none`,
  })
}
