import type { Event } from '../journal/event.js'
import type { EventCache } from './event-cache.js'
import type { Encoder } from './event-sink.js'

/**
 * Encoded events that are queued for one subscriber or for many: subscribers with the same queue share one chain. Queueing an event costs each of them
 * one reference, and the buffer of several events is concatenated once for all.
 */
export class BufferChain {
  readonly bytes: number
  readonly count: number
  readonly #data: Buffer
  readonly #previous: BufferChain | undefined
  /** The chain that was last made by appending to this one. */
  #next: BufferChain | undefined
  #joined: Buffer | undefined

  constructor(data: Buffer, previous?: BufferChain) {
    this.#data = data
    this.#previous = previous
    this.bytes = (previous?.bytes ?? 0) + data.length
    this.count = (previous?.count ?? 0) + 1
  }

  /** This chain with the event of `single`, a chain of one event, appended. */
  with(single: BufferChain): BufferChain {
    let next = this.#next
    if (next === undefined || next.#data !== single.#data) {
      next = new BufferChain(single.#data, this)
      this.#next = next
    }
    return next
  }

  /** All its events in one buffer. */
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

/** One live event, as a chain for each encoder. */
export class LiveEvent {
  readonly sequence: number
  readonly #event: Event
  readonly #cache: EventCache
  readonly #chains = new Map<Encoder, BufferChain>()

  constructor(event: Event, cache: EventCache) {
    this.sequence = event.sequence
    this.#event = event
    this.#cache = cache
  }

  encoded(encode: Encoder): BufferChain {
    let chain = this.#chains.get(encode)
    if (!chain) {
      chain = new BufferChain(this.#cache.encode(this.#event, encode))
      this.#chains.set(encode, chain)
    }
    return chain
  }
}
