import { GatewayError } from '../base/errors.js'

/** So many chunks may have any size; with more, this is the least that they have on average, in bytes. */
const [fewChunks, leastAverage] = [1000, 64]

/**
 * Refuses a body in a multitude of tiny chunks: each costs as much time as a large one, and one read of a connection has ten thousand of
 * one byte.
 *
 * @param size of all of them, in bytes
 * @throws {GatewayError} `bad-request`
 */
export function requireLargeChunks(chunks: number, size: number): void {
  if (chunks <= fewChunks || size >= chunks * leastAverage) return
  throw new GatewayError('bad-request', { hint: `the body comes in chunks of less than ${leastAverage} bytes` })
}

/** A chunk of at least so many bytes is kept as it is; smaller ones are copied together into pieces of at most `pieceSize`. */
const [largeChunk, pieceSize] = [4096, 16 * 1024]
/** Bytes that the first piece has room for; it doubles as long as it is needed. */
const firstPiece = 256

/**
 * Joins the chunks of one body. A body that comes byte by byte would otherwise take a hundred times its size, as each chunk is an
 * object of its own.
 */
export class CollectedChunks {
  #chunks: Buffer[] = []
  #piece = Buffer.alloc(0)
  #filled = 0
  #size = 0
  #count = 0

  /** Bytes of all chunks. */
  get size(): number {
    return this.#size
  }

  /** @throws {GatewayError} as `requireLargeChunks` */
  push(chunk: Buffer): void {
    this.#size += chunk.length
    this.#count += 1
    requireLargeChunks(this.#count, this.#size)
    if (chunk.length >= largeChunk || (this.#size === chunk.length && chunk.length > 0)) {
      this.#endPiece()
      this.#chunks.push(chunk)
      return
    }
    if (this.#filled + chunk.length > pieceSize) this.#endPiece()
    this.#require(this.#filled + chunk.length)
    this.#filled += chunk.copy(this.#piece, this.#filled)
  }

  /** All of them as one, which may share memory with the only chunk. */
  take(): Buffer {
    this.#endPiece()
    const chunks = this.#chunks
    this.#chunks = []
    const [only] = chunks
    return only && chunks.length === 1 ? only : Buffer.concat(chunks, this.#size)
  }

  clear(): void {
    this.#chunks = []
    this.#piece = Buffer.alloc(0)
    this.#filled = 0
    this.#size = 0
  }

  /** Sees to it that the piece has room for so many bytes. */
  #require(length: number): void {
    if (this.#piece.length >= length) return
    const larger = Buffer.allocUnsafe(Math.min(pieceSize, Math.max(firstPiece, 2 * length)))
    this.#piece.copy(larger, 0, 0, this.#filled)
    this.#piece = larger
  }

  #endPiece(): void {
    if (this.#filled > 0) this.#chunks.push(this.#piece.subarray(0, this.#filled))
    this.#piece = Buffer.alloc(0)
    this.#filled = 0
  }
}
