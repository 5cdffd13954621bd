import type { Socket } from 'node:net'
import { GatewayError } from '../base/errors.js'
import type { Transport } from '../base/metrics.js'

/**
 * The client's side of a tunnel: MQTT bytes both ways, why the client left, and a way to say why the gateway leaves.
 *
 * It is calls and not a stream, because every layer of streams between two sockets costs each connection a kilobyte and
 * each message a twentieth of its time, and has nothing to add: the sockets buffer already.
 */
export interface Client {
  readonly transport: Transport
  /** What waits in memory for either side, in bytes. */
  readonly bufferedBytes: number
  /** Whether it is not being read. */
  readonly paused: boolean
  /** Begins to read; what happens is told to `tunnel`. Call it once. */
  start(tunnel: ClientListener): void
  /**
   * Sends `bytes`, of which it keeps nothing but a copy. When it returns false, wait for `clientDrained` before the next,
   * so that memory stays bounded.
   */
  write(bytes: Buffer): boolean
  /** Stops reading; at most what the socket has read already comes until `resume`. */
  pause(): void
  resume(): void
  /** What was written is flushed, then the client is told `ending`, where its transport can, and that no more comes. */
  finish(ending: GatewayError): void
  /** Lets go at once of whatever is still on its way. `clientClosed` follows. */
  destroy(): void
  /** Asks the client for a sign of life, on a transport that has such a thing. */
  ping?(): void
  /** Grows with every sign of life: bytes that came, and bytes that were waiting and that the client took. */
  readonly signsOfLife?: number
}

/** What a client tells its tunnel. */
export interface ClientListener {
  /** Bytes came; they are the listener's to keep. */
  clientSent(bytes: Buffer): void
  /** So many bytes came besides: headers, and frames that are answered and carry no MQTT. */
  clientSentOther?(bytes: number): void
  /** What `write` refused to take more of has been taken. */
  clientDrained(): void
  /** The client will send no more; all that came before has been told. May come again, the first is the reason. */
  clientEnded(ending: GatewayError): void
  /** The connection is gone. The last call. */
  clientClosed(): void
}

/** A client on the plain MQTT port. Its socket has to be half-open capable (`allowHalfOpen`). */
export class TcpClient implements Client {
  readonly transport = 'tcp'
  readonly #socket: Socket

  constructor(socket: Socket) {
    this.#socket = socket
  }

  get bufferedBytes(): number {
    return this.#socket.readableLength + this.#socket.writableLength
  }

  get paused(): boolean {
    return this.#socket.isPaused()
  }

  start(tunnel: ClientListener): void {
    this.#socket
      .on('data', (bytes: Buffer) => tunnel.clientSent(bytes))
      .on('drain', () => tunnel.clientDrained())
      // An MQTT client's way to leave is to close the connection (MQTT 3.1.1 §3.14.4): no FIN is abnormal here.
      .on('end', () => tunnel.clientEnded(new GatewayError('client-closed')))
      .on('error', (error: Error) => tunnel.clientEnded(new GatewayError('client-reset', { cause: error })))
      .on('close', () => tunnel.clientClosed())
  }

  write(bytes: Buffer): boolean {
    return this.#socket.write(Buffer.from(bytes))
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
