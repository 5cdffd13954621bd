import type { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import { GatewayError } from '../base/errors.js'
import type { Transport } from '../base/metrics.js'
import { releaseMemory } from '../base/release-memory.js'

/**
 * The client's side of a tunnel: MQTT bytes in both directions, and the reasons of an end.
 *
 * Callbacks instead of a stream: each layer of streams costs a kilobyte per connection and a twentieth of the time per message, and the
 * sockets buffer already.
 */
export interface Client {
  readonly transport: Transport
  /** Bytes buffered in both directions. */
  readonly bufferedBytes: number
  readonly paused: boolean
  /** Starts to read, and to call `listener`. Call it once. */
  start(listener: ClientListener): void
  /**
   * Sends a copy of `bytes`. After `false`, wait for `clientDrained` before the next call, so that memory stays bounded.
   */
  write(bytes: Buffer): boolean
  /** Stops reading; until `resume`, only bytes that the socket has already read arrive. */
  pause(): void
  resume(): void
  /** Flushes, then sends the reason, if the transport supports one, and the end of the stream. */
  finish(reason: GatewayError): void
  /** Closes at once, with everything that is buffered. `clientClosed` follows. */
  destroy(): void
  /** Sends a ping to the client, if the transport supports it. */
  ping?(): void
  /** Counts the reads from the client, and the times that it took everything that was buffered. */
  readonly activity?: number
}

export interface ClientListener {
  /** MQTT bytes arrived. Returns whether the listener is done with them; otherwise it may keep them. */
  clientSent(bytes: Buffer): boolean
  /** Other bytes arrived: frame headers and control frames. */
  clientSentOther?(bytes: number): void
  /** The client can be written to again, after a `write` that returned `false`. */
  clientDrained(): void
  /** The client sends no more. May be called again; the first reason counts. */
  clientEnded(reason: GatewayError): void
  /** The connection is closed. The last call. */
  clientClosed(): void
}

/** Writes `bytes`, and frees their memory if the kernel has taken them at once. Returns what `write` does. */
export function writeAndRelease(socket: Writable, bytes: Buffer): boolean {
  const hasRoom = socket.write(bytes)
  if (socket.writableLength === 0) releaseMemory(bytes)
  return hasRoom
}

/** A client on an MQTT port, plain or with TLS. Its socket needs `allowHalfOpen`. */
export class TcpClient implements Client {
  readonly transport: 'tcp' | 'tls'
  readonly #socket: Socket

  constructor(socket: Socket, transport: 'tcp' | 'tls' = 'tcp') {
    this.#socket = socket
    this.transport = transport
  }

  get bufferedBytes(): number {
    return this.#socket.readableLength + this.#socket.writableLength
  }

  get paused(): boolean {
    return this.#socket.isPaused()
  }

  start(listener: ClientListener): void {
    this.#socket
      .on('data', (bytes: Buffer) => {
        if (listener.clientSent(bytes)) releaseMemory(bytes)
      })
      .on('drain', () => listener.clientDrained())
      // MQTT clients close the connection after DISCONNECT (MQTT 3.1.1 §3.14.4): a FIN is normal.
      .on('end', () => listener.clientEnded(new GatewayError('client-closed')))
      .on('error', (error: Error) => listener.clientEnded(new GatewayError('client-reset', { cause: error })))
      .on('close', () => listener.clientClosed())
  }

  write(bytes: Buffer): boolean {
    return writeAndRelease(this.#socket, Buffer.from(bytes))
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  finish(): void {
    this.#socket.end()
  }

  destroy(): void {
    this.#socket.destroy()
  }
}
