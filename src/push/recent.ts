import type { Event } from './event.js'
import type { Encoder } from './sink.js'
import { SmallMap } from './small-map.js'

/** Bounds of what is kept in memory. */
export interface RecentBounds {
  readonly maxEvents: number
  /** Of payloads, and of what they were encoded to. */
  readonly maxBytes: number
}

/** An event with what it has been encoded to. */
export interface RecentEvent {
  readonly event: Event
  readonly encoded: SmallMap<Encoder, Buffer>
}

/**
 * The newest events, without holes, and what they were encoded to. Whoever comes back after a moment, as each long-poll
 * does after each answer, gets what it has missed from here and not from disk.
 */
export class Recent {
  readonly #bounds: RecentBounds
  readonly #ring: (RecentEvent | undefined)[]
  /** The sequences of the oldest and of the newest event; there is none where the oldest is later. */
  #first: number
  #last: number
  #bytes = 0

  /** @param last the sequence after which events come */
  constructor(bounds: RecentBounds, last: number) {
    this.#bounds = bounds
    this.#ring = new Array<RecentEvent | undefined>(bounds.maxEvents).fill(undefined)
    this.#first = last + 1
    this.#last = last
  }

  /** Whether all events after `sequence` are here. */
  covers(sequence: number): boolean {
    return sequence >= this.#first - 1
  }

  at(sequence: number): RecentEvent | undefined {
    return sequence >= this.#first && sequence <= this.#last ? this.#ring[sequence % this.#ring.length] : undefined
  }

  push(event: Event): RecentEvent {
    const { sequence } = event
    if (sequence !== this.#last + 1) while (this.#first <= this.#last) this.#drop()
    if (this.#first > this.#last) this.#first = sequence
    const recent = { event, encoded: new SmallMap<Encoder, Buffer>() }
    this.#last = sequence
    if (this.#last - this.#first >= this.#ring.length) this.#drop()
    this.#ring[sequence % this.#ring.length] = recent
    this.#bytes += event.payload.length
    while (this.#bytes > this.#bounds.maxBytes && this.#first <= this.#last) this.#drop()
    return recent
  }

  /** What `encode` makes of an event, which it is asked for once. */
  encode(recent: RecentEvent, encode: Encoder): Buffer {
    let data = recent.encoded.get(encode)
    if (!data) {
      data = encode(recent.event)
      recent.encoded.set(encode, data)
      if (this.at(recent.event.sequence) === recent) this.#bytes += data.length
    }
    return data
  }

  #drop(): void {
    const place = this.#first % this.#ring.length
    const recent = this.#ring[place]
    this.#ring[place] = undefined
    this.#first++
    if (!recent) return
    this.#bytes -= recent.event.payload.length
    for (const data of recent.encoded.values()) this.#bytes -= data.length
  }
}
