import type { Duplex } from 'node:stream'
import type { RawData, WebSocket } from 'ws'
import { Ending } from '../endings.js'
import type { BodyBudget } from '../http/kept-bodies.js'

/** A pong is left out while more than this waits for the client: it could be flooding us with pings. */
const answerBelow = 64 * 1024
/** Bytes of a client's frame of control, without what it carries. */
const controlBytes = 6
/** What a close frame has room for beside its code (RFC 6455 §5.5). */
const longestReason = 123

/** What somebody does with a socket. None of this may throw. */
export interface WireListener {
  /** A whole message: text as a string, anything else as bytes. */
  received(message: string | Buffer): void
  /** It has shown a sign of life: a message, a pong, or bytes that it took. */
  alive(): void
  /** There is room again after a `write` that was `false`. */
  drained(): void
  /** It is over, or has to be. */
  over(ending: Ending): void
}

export interface WireOptions {
  readonly webSocket: WebSocket
  /** What that stands on: frames that are ready go there as they are, between those that it writes itself. */
  readonly connection: Duplex
  /** Bounds what has come of messages that are not complete, of all connections together. */
  readonly budget: BodyBudget
  /** How long a client may take to answer a close frame, in milliseconds. */
  readonly closeTimeout: number
}

/** One WebSocket that takes frames which are the same for many: `ws` does the protocol, and no more of the data's way. */
export class SocketWire {
  readonly #options: WireOptions
  /** Bytes that have come since the last message was complete. */
  #incoming = 0
  #finished = false

  constructor(options: WireOptions, listener: WireListener) {
    this.#options = options
    const { webSocket, connection, budget } = options
    // Before those of `ws` have made messages of it, it is in none.
    connection.prependListener('data', (chunk: Buffer) => this.#count(chunk.length, listener))
    connection.on('drain', () => {
      listener.alive()
      listener.drained()
    })
    webSocket
      .on('message', (data, isBinary) => {
        this.#giveBack(this.#incoming)
        listener.alive()
        listener.received(isBinary ? bytesOf(data) : bytesOf(data).toString())
      })
      .on('ping', (data: Buffer) => {
        this.#giveBack(data.length + controlBytes)
        if (connection.writableLength < answerBelow) webSocket.pong(data)
      })
      .on('pong', (data: Buffer) => {
        this.#giveBack(data.length + controlBytes)
        listener.alive()
      })
      .on('error', (error: Error) => listener.over(failureOf(error)))
      .on('close', code => {
        budget.giveBack(this.#incoming)
        this.#incoming = 0
        listener.over(new Ending(code === 1006 ? 'client-gone' : 'client-closed'))
      })
  }

  /** Whether what was written waits. */
  get isFull(): boolean {
    return this.#options.connection.writableNeedDrain
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
  finish({ closeCode, text }: Ending): void {
    const { webSocket, closeTimeout } = this.#options
    if (this.#finished || webSocket.readyState === webSocket.CLOSED) return
    this.#finished = true
    // What still comes is read into nothing, up to the client's close frame.
    webSocket.resume()
    webSocket.close(closeCode, cut(text))
    const timer = setTimeout(() => webSocket.terminate(), closeTimeout).unref()
    webSocket.once('close', () => clearTimeout(timer))
  }

  destroy(): void {
    this.#options.webSocket.terminate()
  }

  #count(bytes: number, listener: WireListener): void {
    if (this.#finished) return
    try {
      this.#options.budget.take(bytes)
      this.#incoming += bytes
    } catch (error) {
      listener.over(Ending.from(error))
    }
  }

  #giveBack(bytes: number): void {
    const given = Math.min(bytes, this.#incoming)
    this.#incoming -= given
    this.#options.budget.giveBack(given)
  }
}

function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data)
  return Buffer.isBuffer(data) ? data : Buffer.from(data)
}

/** What the failures of `ws` are; it has sent the close frame. */
function failureOf(error: Error): Ending {
  const code = 'code' in error ? error.code : undefined
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') return new Ending('message-too-large')
  const isProtocol = typeof code === 'string' && code.startsWith('WS_ERR_')
  return isProtocol
    ? new Ending('protocol-error', { hint: error.message })
    : new Ending('client-reset', { cause: error })
}

/** As much of a text as a close frame has room for. */
function cut(text: string): string {
  let kept = ''
  let bytes = 0
  for (const character of text) {
    bytes += Buffer.byteLength(character)
    if (bytes > longestReason) break
    kept += character
  }
  return kept
}
