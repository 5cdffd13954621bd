import type { Duplex } from 'node:stream'
import type { RawData, WebSocket } from 'ws'
import { GatewayError } from '../../base/errors.js'
import type { HeldBytes } from '../../http/body-budget.js'
import { closeReason } from '../../websocket/frame-writer.js'
import { UnfinishedMessage } from './unfinished-message.js'

/** Queued bytes beyond which pings are not answered: the client could be flooding with pings. */
const answerBelow = 64 * 1024
/** Bytes of an unfinished message that do not count in the budget: the number of connections bounds them. */
const freeBytes = 4096

/** Handles the events of a socket. No method may throw. */
export interface SocketWriterListener {
  /** A whole message: text as a string, binary as bytes. */
  received(message: string | Buffer): void
  /** A sign of life: a message, a pong, or bytes that it has read. */
  alive(): void
  /** There is room again after a `write` that returned `false`. */
  drained(): void
  /** The connection is closed, or has to be. */
  end(error: GatewayError): void
}

export interface SocketWriterOptions {
  readonly webSocket: WebSocket
  /** The connection of the WebSocket: complete frames are written to it directly, between those of `ws`. */
  readonly connection: Duplex
  /** Budget of the unfinished messages of all connections. */
  readonly held: HeldBytes
  /** Milliseconds that a message may take from its first byte to its last. */
  readonly messageTimeout: number
  /** Milliseconds until a close frame has to be answered. */
  readonly closeTimeout: number
}

/** One WebSocket to which shared frames are written; `ws` handles the protocol. */
export class SocketWriter {
  readonly #options: SocketWriterOptions
  readonly #unfinished = new UnfinishedMessage()
  #timer: NodeJS.Timeout | undefined
  #finished = false
  readonly #startedAt = performance.now()
  #bytesIn = 0
  #bytesOut = 0
  /** Payload of the last ping of this read: only that needs a pong (RFC 6455 §5.5.3). */
  #pendingPong: Buffer | undefined

  constructor(options: SocketWriterOptions, listener: SocketWriterListener) {
    this.#options = options
    const { webSocket, connection } = options
    // Before the listeners of `ws`, which emit a complete message at once.
    connection.prependListener('data', (chunk: Buffer) => {
      this.#bytesIn += chunk.length
      this.#count(chunk, listener)
    })
    connection.on('drain', () => {
      listener.alive()
      listener.drained()
    })
    webSocket
      .on('message', (data, isBinary) => {
        listener.alive()
        listener.received(isBinary ? bytesOf(data) : bytesOf(data).toString())
      })
      .on('ping', (data: Buffer) => {
        if (!this.#pendingPong) process.nextTick(() => this.#sendPong())
        this.#pendingPong = data
      })
      .on('pong', () => listener.alive())
      .on('error', (error: Error) => listener.end(failureOf(error)))
      .on('close', code => {
        this.#forget()
        listener.end(new GatewayError(code === 1006 ? 'client-gone' : 'client-closed'))
      })
  }

  /** Whether written bytes are queued. */
  get isFull(): boolean {
    return this.#options.connection.writableNeedDrain
  }

  /** Fields of the last log line: duration, and bytes of frames in each direction. */
  get logFields(): { readonly seconds: number; readonly bytesIn: number; readonly bytesOut: number } {
    const seconds = Math.round(performance.now() - this.#startedAt) / 1000
    return { seconds, bytesIn: this.#bytesIn, bytesOut: this.#bytesOut }
  }

  /** Queued bytes. */
  get bufferedBytes(): number {
    return this.#options.connection.writableLength
  }

  /** Writes one or several frames; `false` if nothing more should be written until `drained`. */
  write(frames: Buffer): boolean {
    const { webSocket, connection } = this.#options
    // No frame may follow a close frame (RFC 6455 §5.5.1).
    if (webSocket.readyState !== webSocket.OPEN) return true
    this.#bytesOut += frames.length
    return connection.write(frames)
  }

  ping(): void {
    const { webSocket } = this.#options
    if (webSocket.readyState === webSocket.OPEN) webSocket.ping()
  }

  get isPaused(): boolean {
    return this.#options.webSocket.isPaused
  }

  pause(): void {
    this.#options.webSocket.pause()
  }

  resume(): void {
    this.#options.webSocket.resume()
  }

  /** Sends the close frame, and destroys the connection if it is not answered in time. */
  finish({ closeCode, text }: GatewayError): void {
    const { webSocket, closeTimeout } = this.#options
    if (this.#finished || webSocket.readyState === webSocket.CLOSED) return
    this.#finished = true
    this.#forget()
    // Further input is discarded, up to the client's close frame.
    webSocket.resume()
    webSocket.close(closeCode, closeReason(text))
    const timer = setTimeout(() => webSocket.terminate(), closeTimeout).unref()
    webSocket.once('close', () => clearTimeout(timer))
  }

  destroy(): void {
    this.#options.webSocket.terminate()
  }

  #sendPong(): void {
    const { webSocket, connection } = this.#options
    if (connection.writableLength < answerBelow) webSocket.pong(this.#pendingPong)
    this.#pendingPong = undefined
  }

  #count(chunk: Buffer, listener: SocketWriterListener): void {
    if (this.#finished) return
    const { held, messageTimeout } = this.#options
    this.#unfinished.read(chunk)
    const { held: bytes } = this.#unfinished
    if (bytes === 0) return this.#forget()
    try {
      held.resize(bytes > freeBytes ? bytes : 0)
      this.#timer ??= setTimeout(() => this.#giveUp(listener), messageTimeout).unref()
    } catch (error) {
      listener.end(GatewayError.from(error))
    }
  }

  #giveUp(listener: SocketWriterListener): void {
    // The rest of a message cannot arrive while reading is paused.
    if (this.isPaused) this.#timer?.refresh()
    else listener.end(new GatewayError('message-timeout'))
  }

  #forget(): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#options.held.resize(0)
  }
}

function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data)
  return Buffer.isBuffer(data) ? data : Buffer.from(data)
}

/** The error of a failure of `ws`, which has sent the close frame. */
function failureOf(error: Error): GatewayError {
  const code = 'code' in error ? error.code : undefined
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') return new GatewayError('message-too-large')
  const isProtocol = typeof code === 'string' && code.startsWith('WS_ERR_')
  return isProtocol
    ? new GatewayError('protocol-error', { hint: error.message })
    : new GatewayError('client-reset', { cause: error })
}
