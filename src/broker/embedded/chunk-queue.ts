import type { TickScheduler } from './tick-scheduler.js'

/** Chunks up to this size are joined with their neighbours; a larger one is handed on by reference, never copied. */
const smallChunk = 16 * 1024
/** The largest chunk that joining makes. */
const joinedChunk = 64 * 1024
/** Small chunks that may wait before they are joined: what a Buffer costs beside its bytes is about 200 of them. */
const maxSmallChunks = 256

/** Bytes that wait, in the order in which they came. It costs little more memory than the bytes, however small they come. */
export class ChunkQueue {
  readonly #concat: (chunks: readonly Buffer[]) => Buffer
  #chunks: Buffer[] = []
  #bytes = 0
  #small = 0

  /** @param concat makes one chunk of several */
  constructor(concat: (chunks: readonly Buffer[]) => Buffer = Buffer.concat) {
    this.#concat = concat
  }

  get bytes(): number {
    return this.#bytes
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (chunk.length > smallChunk || ++this.#small < maxSmallChunks) return
    this.#chunks = join(this.#chunks)
    this.#small = 0
  }

  /** The next large chunk, or as many small ones as make one. */
  shift(): Buffer | undefined {
    const run = this.#shiftRun()
    const [first] = run
    if (!first) return undefined
    const chunk = run.length === 1 ? first : this.#concat(run)
    this.#bytes -= chunk.length
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
    this.#small = 0
  }

  #shiftRun(): readonly Buffer[] {
    const count = runLength(this.#chunks)
    if (count < this.#chunks.length) return this.#chunks.splice(0, count)
    const run = this.#chunks
    this.#chunks = []
    this.#small = 0
    return run
  }
}

/** How many chunks, from the one at `start` on, make one: a large one by itself, or as many small ones as there is room for. */
function runLength(chunks: readonly Buffer[], start = 0): number {
  let length = 0
  let at = start
  for (let chunk = chunks[at]; chunk; chunk = chunks[++at]) {
    length += chunk.length
    if (at > start && (chunk.length > smallChunk || length > joinedChunk)) break
    if (chunk.length > smallChunk) return 1
  }
  return at - start
}

/** Joins runs of small chunks; big ones stay as they are. */
export function join(chunks: readonly Buffer[]): Buffer[] {
  const joined: Buffer[] = []
  for (let at = 0; at < chunks.length; ) {
    const run = chunks.slice(at, at + runLength(chunks, at))
    at += run.length
    joined.push(run[0] && run.length === 1 ? run[0] : Buffer.concat(run))
  }
  return joined
}

/**
 * Joins chunks, and returns the last result again for the same chunks: subscribers mostly get the same chunks in one event-loop tick.
 */
export class ConcatCache {
  readonly #tick: TickScheduler
  #chunks: readonly Buffer[] = []
  #joined: Buffer | undefined

  constructor(tick: TickScheduler) {
    this.#tick = tick
  }

  readonly join = (chunks: readonly Buffer[]): Buffer => {
    if (this.#joined && isSame(chunks, this.#chunks)) return this.#joined
    if (!this.#joined) this.#tick.add(this.#forget)
    this.#chunks = chunks
    this.#joined = Buffer.concat(chunks)
    return this.#joined
  }

  readonly #forget = (): void => {
    this.#chunks = []
    this.#joined = undefined
  }
}

function isSame(some: readonly Buffer[], others: readonly Buffer[]): boolean {
  return some.length === others.length && some.every((chunk, index) => chunk === others[index])
}
