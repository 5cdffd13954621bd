import type { Duplex } from 'node:stream'
import type { RawData, WebSocket } from 'ws'
import { GatewayError } from '../../base/errors.js'
import type { HeldBytes } from '../../http/body-budget.js'
import { closeReason } from '../../websocket/frame-writer.js'
import { UnfinishedMessage } from './unfinished-message.js'

/** A pong is left out while more than this waits for the client: it could be flooding us with pings. */
const answerBelow = 64 * 1024
/** Bytes of an unfinished message that are nobody's budget: the number of connections bounds them. */
const freeBytes = 4096

/** What somebody does with a socket. None of this may throw. */
export interface SocketWriterListener {
  /** A whole message: text as a string, anything else as bytes. */
  received(message: string | Buffer): void
  /** It has shown a sign of life: a message, a pong, or bytes that it took. */
  alive(): void
  /** There is room again after a `write` that was `false`. */
  drained(): void
  /** It is over, or has to be. */
  over(ending: GatewayError): void
}

export interface SocketWriterOptions {
  readonly webSocket: WebSocket
  /** What that stands on: frames that are ready go there as they are, between those that it writes itself. */
  readonly connection: Duplex
  /** Bounds the unfinished messages of all connections together. */
  readonly held: HeldBytes
  /** How long a message may take from its first byte to its last, in milliseconds. */
  readonly messageTimeout: number
  /** How long a client may take to answer a close frame, in milliseconds. */
  readonly closeTimeout: number
}

/** One WebSocket that takes frames which are the same for many: `ws` does the protocol, and no more of the data's way. */
export class SocketWriter {
  readonly #options: SocketWriterOptions
  readonly #unfinished = new UnfinishedMessage()
  #timer: NodeJS.Timeout | undefined
  #finished = false
  readonly #startedAt = performance.now()
  #bytesIn = 0
  #bytesOut = 0

  constructor(options: SocketWriterOptions, listener: SocketWriterListener) {
    this.#options = options
    const { webSocket, connection } = options
    // Before those of `ws`, which hand a complete message on at once.
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
        if (connection.writableLength < answerBelow) webSocket.pong(data)
      })
      .on('pong', () => listener.alive())
      .on('error', (error: Error) => listener.over(failureOf(error)))
      .on('close', code => {
        this.#forget()
        listener.over(new GatewayError(code === 1006 ? 'client-gone' : 'client-closed'))
      })
  }

  /** Whether what was written waits. */
  get isFull(): boolean {
    return this.#options.connection.writableNeedDrain
  }

  /** Fields of the log line about its end: how long it was open, and the bytes of frames each way. */
  get logFields(): { readonly seconds: number; readonly bytesIn: number; readonly bytesOut: number } {
    const seconds = Math.round(performance.now() - this.#startedAt) / 1000
    return { seconds, bytesIn: this.#bytesIn, bytesOut: this.#bytesOut }
  }

  /** Bytes that wait. */
  get bufferedBytes(): number {
    return this.#options.connection.writableLength
  }

  /** Writes one frame, or several; `false` where no more should come until `drained`. */
  write(frames: Buffer): boolean {
    const { webSocket, connection } = this.#options
    // After the close frame, no other may follow (RFC 6455 §5.5.1).
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

  /** Sends the close frame, and cuts off whoever does not answer it in time. */
  finish({ closeCode, text }: GatewayError): void {
    const { webSocket, closeTimeout } = this.#options
    if (this.#finished || webSocket.readyState === webSocket.CLOSED) return
    this.#finished = true
    this.#forget()
    // What still comes is read into nothing, up to the client's close frame.
    webSocket.resume()
    webSocket.close(closeCode, closeReason(text))
    const timer = setTimeout(() => webSocket.terminate(), closeTimeout).unref()
    webSocket.once('close', () => clearTimeout(timer))
  }

  destroy(): void {
    this.#options.webSocket.terminate()
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
      listener.over(GatewayError.from(error))
    }
  }

  #giveUp(listener: SocketWriterListener): void {
    // The rest cannot come while nothing is read.
    if (this.isPaused) this.#timer?.refresh()
    else listener.over(new GatewayError('message-timeout'))
  }

  /** Holds nothing of a message any more. */
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

/** What the failures of `ws` are; it has sent the close frame. */
function failureOf(error: Error): GatewayError {
  const code = 'code' in error ? error.code : undefined
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') return new GatewayError('message-too-large')
  const isProtocol = typeof code === 'string' && code.startsWith('WS_ERR_')
  return isProtocol
    ? new GatewayError('protocol-error', { hint: error.message })
    : new GatewayError('client-reset', { cause: error })
}
