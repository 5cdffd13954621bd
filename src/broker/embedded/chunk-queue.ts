import type { TickScheduler } from './tick-scheduler.js'

/** Chunks up to this size are joined; larger ones are never copied. In bytes. */
const smallChunk = 16 * 1024
/** Maximum size of a joined chunk, in bytes. */
const joinedChunk = 64 * 1024
/** Small chunks that may wait unjoined: each Buffer has an overhead of some 200 bytes. */
const maxSmallChunks = 256

/** A queue of chunks with little memory overhead, however small they are. */
export class ChunkQueue {
  readonly #concat: (chunks: readonly Buffer[]) => Buffer
  #chunks: Buffer[] = []
  #bytes = 0
  #small = 0

  /** @param concat joins chunks */
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

  /** Removes the next large chunk, or several small ones as one. */
  shift(): Buffer | undefined {
    const run = this.#shiftRun()
    const [first] = run
    if (!first) return undefined
    const chunk = run.length === 1 ? first : this.#concat(run)
    this.#bytes -= chunk.length
    return chunk
  }

  /** Puts back the rest of a chunk from `shift`. */
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

/** How many chunks from `start` on are joined: a large one alone, or small ones up to `joinedChunk`. */
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

/** Joins runs of small chunks. */
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
