import { Socket, type SocketConnectOpts, type SocketConstructorOpts } from 'node:net'
import type { DirectReadable } from '../broker.js'

/** The size of libuv's own reads, in bytes. */
const readSize = 64 * 1024

/** Memory that all sockets read into, one after the other: each read is consumed before the next one begins. */
export class ReadBuffer {
  readonly bytes = Buffer.allocUnsafeSlow(readSize)
}

/**
 * A connection to a broker that can pass on each read at once, from memory shared by all such sockets: Node otherwise allocates 64 KiB
 * and a buffer object for each read. Without a call of `readDirectly`, it is an ordinary stream.
 */
export class UpstreamSocket extends Socket implements DirectReadable {
  #onBytes: ((bytes: Buffer) => void) | undefined

  constructor(options: SocketConstructorOpts, { bytes }: ReadBuffer) {
    // An option of `net.connect`, which gives it to the constructor.
    const withOnread: SocketConstructorOpts & Pick<SocketConnectOpts, 'onread'> = {
      ...options,
      onread: { buffer: bytes, callback: length => this.#onRead(bytes, length) },
    }
    super(withOnread)
  }

  readDirectly(onBytes: (bytes: Buffer) => void): void {
    // As of Node 26, `read` returns one buffer at a time (nodejs/node#60441).
    const buffered: Buffer[] = []
    for (let bytes = this.#readBuffer(); bytes; bytes = this.#readBuffer()) buffered.push(bytes)
    this.#onBytes = onBytes
    for (const bytes of buffered) onBytes(bytes)
    this.resume()
  }

  #readBuffer(): Buffer | null {
    return this.read()
  }

  /** Returns false to stop reading until Node calls `_read`. */
  #onRead(shared: Buffer, length: number): boolean {
    const bytes = shared.subarray(0, length)
    if (!this.#onBytes) return this.push(Buffer.from(bytes))
    this.#onBytes(bytes)
    return true
  }
}
