import type { Duplex } from 'node:stream'
import { type ErrorReason, GatewayError, type GatewayErrorOptions } from '../base/errors.js'
import type { Traffic } from '../base/metrics.js'
import { releaseMemory } from '../base/release-memory.js'
import { type ControlFrames, FrameDecoder } from '../websocket/frame-decoder.js'
import { encodeClose, encodeFrame } from '../websocket/frame-writer.js'
import { type Client, type ClientListener, writeAndRelease } from './client.js'

/** Bytes buffered for the client from which pongs and pings wait: the client could send pings and read nothing. */
const maxBufferedForControl = 64 * 1024

/**
 * The server's side of a WebSocket: reads the payload of the client's frames, and writes binary frames.
 *
 * It ends with a close frame and then FIN: the server closes the connection first (RFC 6455 §7.1.1).
 */
export class WebSocketClient implements Client, ControlFrames {
  readonly transport = 'websocket'
  activity = 0

  readonly #socket: Duplex
  readonly #traffic: Traffic
  readonly #decoder: FrameDecoder
  #listener: ClientListener | undefined
  #hasEnded = false
  #finished = false
  #pendingPong: Buffer | undefined

  /**
   * @param socket the upgraded connection, from its first byte after the handshake; the client owns it from now on
   * @param traffic counts frames
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

  start(listener: ClientListener): void {
    this.#listener = listener
    this.#socket
      .on('data', (chunk: Buffer) => this.#onData(chunk, listener))
      .on('drain', () => this.#onDrain(listener))
      .on('end', () => this.#endReading('client-gone'))
      .on('error', (error: Error) => this.#endReading('client-reset', { cause: error }))
      .on('close', () => {
        this.#endReading('client-reset')
        listener.clientClosed()
      })
  }

  write(payload: Buffer): boolean {
    if (this.#finished || !this.#socket.writable) return true
    this.#traffic.framesOut++
    return writeAndRelease(this.#socket, encodeFrame('binary', payload))
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** Sends a ping, unless much is buffered for the client already. */
  ping(): void {
    if (this.#socket.writableLength < maxBufferedForControl) this.#sendControl(encodeFrame('ping', Buffer.alloc(0)))
  }

  finish(reason: GatewayError): void {
    if (this.#finished || !this.#socket.writable) return
    this.#finished = true
    this.#traffic.framesOut++
    const { end } = this.#decoder
    // A client's close frame is answered with its own code (RFC 6455 §5.5.1).
    const frame = end?.kind === 'close' ? encodeClose(end.code, end.reason) : encodeClose(reason.closeCode, reason.text)
    this.#socket.end(frame)
  }

  destroy(): void {
    this.#socket.destroy()
  }

  onPing(payload: Buffer): void {
    // Of several unanswered pings, only the last needs a pong (RFC 6455 §5.5.3).
    this.#pendingPong = encodeFrame('pong', payload)
  }

  /** The read has counted as activity already. */
  onPong(): void {}

  #onData(chunk: Buffer, listener: ClientListener): void {
    this.activity++
    if (this.#hasEnded) return
    const decoder = this.#decoder
    const { length } = chunk
    const payload = decoder.decode(chunk)
    if (this.#socket.writableLength < maxBufferedForControl) this.#sendPong()
    this.#traffic.framesIn = decoder.frames
    listener.clientSentOther?.(length - payload.length)
    const isDone = payload.length === 0 || listener.clientSent(payload)
    const { end } = decoder
    if (end?.kind === 'close') this.#endReading('client-closed')
    else if (end) this.#endReading(end.reason, { hint: end.hint })
    if (isDone) releaseMemory(chunk)
  }

  #endReading(reason: ErrorReason, options: GatewayErrorOptions = {}): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#listener?.clientEnded(new GatewayError(reason, options))
    // Reads on, into nothing, so that the client's FIN is seen, which closes the socket.
    this.#socket.resume()
  }

  #onDrain(listener: ClientListener): void {
    this.activity++
    this.#sendPong()
    listener.clientDrained()
  }

  #sendPong(): void {
    const pong = this.#pendingPong
    this.#pendingPong = undefined
    if (pong) this.#sendControl(pong)
  }

  #sendControl(frame: Buffer): void {
    // After the close frame, no other may follow (RFC 6455 §5.5.1).
    if (this.#finished || !this.#socket.writable) return
    this.#traffic.framesOut++
    this.#socket.write(frame)
  }
}
