import type { Duplex } from 'node:stream'
import { type ErrorReason, GatewayError, type GatewayErrorOptions } from '../base/errors.js'
import type { Traffic } from '../base/metrics.js'
import { type ControlFrames, FrameDecoder } from '../websocket/frame-decoder.js'
import { encodeClose, encodeFrame } from '../websocket/frame-writer.js'
import type { Client, ClientListener } from './client.js'

/** A pong (or any other answer) is put off while more than this waits for the client: it could be flooding us with pings. */
const answerBelow = 64 * 1024

/**
 * The server's end of a WebSocket: it reads the payload of the client's frames, and makes a binary frame of each write.
 *
 * It ends by sending the close frame and then FIN (RFC 6455 §7.1.1: the server closes the connection first), and lives
 * until its socket is gone.
 */
export class WebSocketClient implements Client, ControlFrames {
  readonly transport = 'websocket'
  signsOfLife = 0

  readonly #socket: Duplex
  readonly #traffic: Traffic
  readonly #decoder: FrameDecoder
  #tunnel: ClientListener | undefined
  /** Whether the client sends no more. */
  #hasEnded = false
  #finished = false
  #dueAnswer: Buffer | undefined

  /**
   * @param socket the upgraded connection, nothing of it consumed; it is this client's from now on
   * @param traffic where frames are counted
   */
  constructor(socket: Duplex, traffic: Traffic) {
    this.#socket = socket
    this.#traffic = traffic
    this.#decoder = new FrameDecoder(this)
  }

  get bufferedBytes(): number {
    return this.#socket.readableLength + this.#socket.writableLength
  }

  get paused(): boolean {
    return this.#socket.isPaused()
  }

  start(tunnel: ClientListener): void {
    this.#tunnel = tunnel
    this.#socket
      .on('data', (chunk: Buffer) => this.#onData(chunk, tunnel))
      .on('drain', () => this.#onDrain(tunnel))
      .on('end', () => this.#endReading('client-gone'))
      .on('error', (error: Error) => this.#endReading('client-reset', { cause: error }))
      .on('close', () => {
        this.#endReading('client-reset')
        tunnel.clientClosed()
      })
  }

  write(payload: Buffer): boolean {
    if (this.#finished || !this.#socket.writable) return true
    this.#traffic.framesOut++
    return this.#socket.write(encodeFrame('binary', payload))
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** Sends a ping, unless the client does not even read what was sent before. */
  ping(): void {
    if (this.#socket.writableLength < answerBelow) this.#sendControl(encodeFrame('ping', Buffer.alloc(0)))
  }

  finish(ending: GatewayError): void {
    if (this.#finished || !this.#socket.writable) return
    this.#finished = true
    this.#traffic.framesOut++
    const { end } = this.#decoder
    // A client that closed gets its own code back (RFC 6455 §5.5.1).
    const frame = end?.kind === 'close' ? encodeClose(end.code, end.reason) : encodeClose(ending.closeCode, ending.text)
    this.#socket.end(frame)
  }

  destroy(): void {
    this.#socket.destroy()
  }

  onPing(payload: Buffer): void {
    const pong = encodeFrame('pong', payload)
    // Of several pings that wait for their answer, only the last needs one (RFC 6455 §5.5.3).
    if (this.#socket.writableLength < answerBelow) this.#sendControl(pong)
    else this.#dueAnswer = pong
  }

  /** Any bytes were a sign of life already. */
  onPong(): void {}

  #onData(chunk: Buffer, tunnel: ClientListener): void {
    this.signsOfLife++
    if (this.#hasEnded) return
    const decoder = this.#decoder
    const { length } = chunk
    const payload = decoder.decode(chunk)
    this.#traffic.framesIn = decoder.frames
    tunnel.clientSentOther?.(length - payload.length)
    if (payload.length > 0) tunnel.clientSent(payload)
    const { end } = decoder
    if (end?.kind === 'close') this.#endReading('client-closed')
    else if (end) this.#endReading(end.reason, { hint: end.hint })
  }

  #endReading(reason: ErrorReason, options: GatewayErrorOptions = {}): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#tunnel?.clientEnded(new GatewayError(reason, options))
    // Read on, into nothing: only so is the FIN seen that lets the socket go.
    this.#socket.resume()
  }

  #onDrain(tunnel: ClientListener): void {
    this.signsOfLife++
    const answer = this.#dueAnswer
    this.#dueAnswer = undefined
    if (answer) this.#sendControl(answer)
    tunnel.clientDrained()
  }

  #sendControl(frame: Buffer): void {
    // After the close frame, no other may follow (RFC 6455 §5.5.1).
    if (this.#finished || !this.#socket.writable) return
    this.#traffic.framesOut++
    this.#socket.write(frame)
  }
}
