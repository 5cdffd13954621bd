import { Duplex } from 'node:stream'
import { Ending } from '../endings.js'
import type { Traffic } from '../metrics.js'
import type { Client } from './client.js'
import { encodeClose, encodeFrame, FrameDecoder, headerSize, writeHeader } from './frame-codec.js'

/** Payloads up to this size are copied behind their header; above, header and payload leave in one `writev`. */
const copyBelow = 4096

/**
 * What this side reads ahead for a broker that is slow, and keeps for a client that is slow, each; the socket's own
 * buffer and one read of 64 KiB come on top, which keeps a stalled connection under 256 KiB.
 */
const highWaterMark = 16 * 1024

/** A pong (or any other answer) is put off while more than this waits for the client: it could be flooding us with pings. */
const answerBelow = 64 * 1024

/**
 * The server's end of a WebSocket, as a byte stream: reading gives the payload of the client's frames, writing makes
 * binary frames of whatever is waiting.
 *
 * Reading ends when the client has closed, gone, or broken the protocol; why, is told to `onEnd` first. Ending the writing side sends the close frame and then FIN.
 */
export class WebSocketStream extends Duplex implements Client {
  readonly transport = 'websocket'
  readonly stream = this
  onEnd: (ending: Ending) => void = () => {}
  signsOfLife = 0

  readonly #socket: Duplex
  readonly #traffic: Traffic
  readonly #decoder: FrameDecoder
  #clientEnding: Ending | undefined
  /** What the close frame will say, when this side is the one that ends. */
  #ownEnding: Ending | undefined
  #written: (() => void) | undefined
  #dueAnswer: Buffer | undefined

  /**
   * @param socket the upgraded connection, nothing of it consumed; this stream owns it from now on
   * @param traffic where frames are counted
   */
  constructor(socket: Duplex, traffic: Traffic) {
    // This stream lives as long as its socket: destroyed any sooner, the close frame could be lost with a reset.
    super({ allowHalfOpen: true, autoDestroy: false, highWaterMark })
    this.#socket = socket
    this.#traffic = traffic
    this.#decoder = new FrameDecoder({ ping: payload => this.#answer(encodeFrame('pong', payload)), pong: () => {} })
    socket.on('data', (chunk: Buffer) => this.#onData(chunk))
    socket.on('drain', () => this.#onDrain())
    socket.on('end', () => this.#endReading(new Ending('client-gone')))
    socket.on('error', (error: Error) => this.#endReading(new Ending('client-reset', { cause: error })))
    socket.on('close', () => this.#onClose())
  }

  /** What waits in memory for either side, in bytes. */
  get bufferedBytes(): number {
    return this.readableLength + this.writableLength + this.#socket.readableLength + this.#socket.writableLength
  }

  /** Sends a ping, unless the client does not even read what was sent before. */
  ping(): void {
    if (this.#socket.writableLength < answerBelow) this.#sendControl(encodeFrame('ping', Buffer.alloc(0)))
  }

  finish(ending: Ending): void {
    this.#ownEnding ??= ending
    if (!this.writableEnded) this.end()
  }

  #onData(chunk: Buffer): void {
    this.signsOfLife++
    if (this.#clientEnding) return
    const decoder = this.#decoder
    const payload = decoder.decode(chunk)
    this.#traffic.framesIn = decoder.frames
    if (payload.length > 0 && !this.push(payload)) this.#socket.pause()
    if (!decoder.end) return
    if (decoder.end.kind === 'violation') {
      this.#endReading(new Ending(decoder.end.reason, { hint: decoder.end.hint }))
    } else {
      this.#endReading(new Ending('client-closed'))
    }
  }

  /** The client will send no more: what it sent before is still read by whoever reads this stream. */
  #endReading(ending: Ending): void {
    if (this.#clientEnding) return
    this.#clientEnding = ending
    this.onEnd(ending)
    this.push(null)
    // Read on, into nothing: only so is the FIN seen that lets the socket go.
    this.#socket.resume()
  }

  #onClose(): void {
    this.#endReading(new Ending('client-reset'))
    // Nobody is there to write to: what is still written counts as gone, so that what was read can still be delivered.
    this.#releaseWrite()
    if (this.readableEnded) this.destroy()
    else this.once('end', () => this.destroy())
  }

  #onDrain(): void {
    this.signsOfLife++
    const answer = this.#dueAnswer
    this.#dueAnswer = undefined
    if (answer) this.#sendControl(answer)
    this.#releaseWrite()
  }

  #releaseWrite(): void {
    const written = this.#written
    this.#written = undefined
    written?.()
  }

  #answer(frame: Buffer): void {
    // Of several pings that wait for their answer, only the last needs one (RFC 6455 §5.5.3).
    if (this.#socket.writableLength < answerBelow) this.#sendControl(frame)
    else this.#dueAnswer = frame
  }

  #sendControl(frame: Buffer): void {
    // After the close frame, no other may follow (RFC 6455 §5.5.1).
    if (this.writableFinished || !this.#socket.writable) return
    this.#traffic.framesOut++
    this.#socket.write(frame)
  }

  override _read(): void {
    if (!this.#clientEnding) this.#socket.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    const socket = this.#socket
    if (!socket.writable) return callback()
    const length = chunk.length
    this.#traffic.framesOut++
    const size = headerSize(length)
    let flowing: boolean
    if (length <= copyBelow) {
      const frame = Buffer.allocUnsafe(size + length)
      writeHeader(frame, 'binary', length)
      frame.set(chunk, size)
      flowing = socket.write(frame)
    } else {
      const header = Buffer.allocUnsafe(size)
      writeHeader(header, 'binary', length)
      socket.cork()
      socket.write(header)
      flowing = socket.write(chunk)
      socket.uncork()
    }
    this.#afterWrite(flowing, callback)
  }

  /** All that waits becomes one frame: an MQTT packet encoder writes a packet in several small pieces. */
  override _writev(items: { chunk: Buffer }[], callback: () => void): void {
    const chunks = items.map(item => item.chunk)
    const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
    if (length <= copyBelow) return this._write(Buffer.concat(chunks, length), 'binary', callback)
    const socket = this.#socket
    if (!socket.writable) return callback()
    this.#traffic.framesOut++
    const header = Buffer.allocUnsafe(headerSize(length))
    writeHeader(header, 'binary', length)
    socket.cork()
    let flowing = socket.write(header)
    for (const chunk of chunks) flowing = socket.write(chunk)
    socket.uncork()
    this.#afterWrite(flowing, callback)
  }

  #afterWrite(flowing: boolean, callback: () => void): void {
    if (flowing || this.#socket.destroyed) callback()
    else this.#written = callback
  }

  /** The close frame, then FIN (RFC 6455 §7.1.1: the server closes the connection first). */
  override _final(callback: () => void): void {
    const socket = this.#socket
    if (!socket.writable) return callback()
    this.#traffic.framesOut++
    socket.end(this.#closeFrame(), () => callback())
  }

  #closeFrame(): Buffer {
    const end = this.#decoder.end
    // A client that closed gets its own code back (RFC 6455 §5.5.1).
    if (end?.kind === 'close') return encodeClose(end.code, end.reason)
    const ending = this.#ownEnding ?? this.#clientEnding ?? new Ending('broker-closed')
    return encodeClose(ending.closeCode, ending.text)
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#releaseWrite()
    this.#socket.destroy()
    callback(error)
  }
}
