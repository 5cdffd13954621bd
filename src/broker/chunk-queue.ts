/** Chunks up to this size are joined with their neighbours; a larger one is handed on by reference, never copied. */
const smallChunk = 16 * 1024
/** The largest chunk that joining makes. */
const joinedChunk = 64 * 1024
/** Small chunks that may wait before they are joined: what a Buffer costs beside its bytes is about 200 of them. */
const mostSmallChunks = 256

/** Bytes that wait, in the order in which they came. It costs little more memory than the bytes, however small they come. */
export class ChunkQueue {
  #chunks: Buffer[] = []
  #bytes = 0
  #small = 0

  get bytes(): number {
    return this.#bytes
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (chunk.length > smallChunk || ++this.#small < mostSmallChunks) return
    this.#chunks = join(this.#chunks)
    this.#small = 0
  }

  shift(): Buffer | undefined {
    const chunk = this.#chunks.shift()
    if (chunk) this.#bytes -= chunk.length
    return chunk
  }

  /** Puts back the rest of what `shift` gave. */
  unshift(chunk: Buffer): void {
    this.#chunks.unshift(chunk)
    this.#bytes += chunk.length
  }

  clear(): void {
    this.#chunks = []
    this.#bytes = 0
  }
}

/** Joins runs of small chunks; big ones stay as they are. */
export function join(chunks: readonly Buffer[]): Buffer[] {
  const joined: Buffer[] = []
  let run: Buffer[] = []
  let length = 0
  const closeRun = (): void => {
    const [only] = run
    if (only) joined.push(run.length === 1 ? only : Buffer.concat(run, length))
    run = []
    length = 0
  }
  for (const chunk of chunks) {
    if (chunk.length > smallChunk || length + chunk.length > joinedChunk) closeRun()
    if (chunk.length > smallChunk) {
      joined.push(chunk)
    } else if (chunk.length > 0) {
      run.push(chunk)
      length += chunk.length
    }
  }
  closeRun()
  return joined
}
