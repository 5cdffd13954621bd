import { GatewayError } from '../base/errors.js'

/** Chunks of any size, and the average size of chunks beyond that number, in bytes. */
const [fewChunks, leastAverage] = [1000, 64]

/**
 * Refuses a body in a multitude of tiny chunks: each costs as much time as a large one, and one read may bring ten thousand of one byte.
 *
 * @param size bytes of all chunks
 * @throws {GatewayError} `bad-request`
 */
export function requireLargeChunks(chunks: number, size: number): void {
  if (chunks <= fewChunks || size >= chunks * leastAverage) return
  throw new GatewayError('bad-request', { hint: `the body has chunks of less than ${leastAverage} bytes` })
}

/** Bytes of a chunk that is not copied; smaller ones are copied into pieces of at most `pieceSize`. */
const [largeChunk, pieceSize] = [4096, 16 * 1024]
/** Bytes of the first piece; doubled as needed. */
const firstPiece = 256

/**
 * Joins the chunks of one body. An object for each chunk of one byte would take a hundred times its size.
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

  /** All chunks as one buffer; may share memory with the only chunk. */
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

  /** Grows the piece to this length. */
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
