/**
 * Encoded events that wait for one subscriber, or for many: those that get the same events, one after the other, hold the
 * same chain. So to add an event costs each of them nothing but a reference, and what makes one write of several events
 * is done once for all.
 */
export class BufferChain {
  readonly bytes: number
  readonly count: number
  readonly #data: Buffer
  readonly #previous: BufferChain | undefined
  /** The chain that the last event made of this one. */
  #next: BufferChain | undefined
  #joined: Buffer | undefined

  constructor(data: Buffer, previous?: BufferChain) {
    this.#data = data
    this.#previous = previous
    this.bytes = (previous?.bytes ?? 0) + data.length
    this.count = (previous?.count ?? 0) + 1
  }

  /** This chain with the event of `start`, which has no other, at its end. */
  with(start: BufferChain): BufferChain {
    let next = this.#next
    if (next === undefined || next.#data !== start.#data) {
      next = new BufferChain(start.#data, this)
      this.#next = next
    }
    return next
  }

  /** All its events, to be written at once. */
  joined(): Buffer {
    if (this.count === 1) return this.#data
    if (!this.#joined) {
      const parts: Buffer[] = []
      for (let chain: BufferChain | undefined = this; chain; chain = chain.#previous) parts.push(chain.#data)
      this.#joined = Buffer.concat(parts.reverse(), this.bytes)
    }
    return this.#joined
  }
}
