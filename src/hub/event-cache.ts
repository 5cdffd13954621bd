import { SmallMap } from '../base/small-map.js'
import type { Event } from '../journal/event.js'
import type { Encoder } from './event-sink.js'

export interface EventCacheBounds {
  readonly maxEvents: number
  /** Of topics, payloads and encoded events. */
  readonly maxBytes: number
}

/**
 * The newest events, without gaps, and their encoded forms. A client that reconnects after a moment, as each long-poll does, is served from memory.
 */
export class EventCache {
  readonly #bounds: EventCacheBounds
  readonly #ring: (Event | undefined)[]
  /** By sequence; separate from the events, most of which have no subscriber. */
  readonly #encoded = new Map<number, SmallMap<Encoder, Buffer>>()
  /** The sequences of the oldest and the newest event; empty if the oldest is later. */
  #first: number
  #last: number
  #bytes = 0

  /** @param last the sequence before the first event */
  constructor(bounds: EventCacheBounds, last: number) {
    this.#bounds = bounds
    this.#ring = new Array<Event | undefined>(bounds.maxEvents).fill(undefined)
    this.#first = last + 1
    this.#last = last
  }

  /** Whether all events after `sequence` are cached. */
  covers(sequence: number): boolean {
    return sequence >= this.#first - 1
  }

  at(sequence: number): Event | undefined {
    return sequence >= this.#first && sequence <= this.#last ? this.#ring[sequence % this.#ring.length] : undefined
  }

  push(event: Event): void {
    const { sequence } = event
    if (sequence !== this.#last + 1) while (this.#first <= this.#last) this.#drop()
    if (this.#first > this.#last) this.#first = sequence
    this.#last = sequence
    if (this.#last - this.#first >= this.#ring.length) this.#drop()
    this.#ring[sequence % this.#ring.length] = event
    this.#bytes += bytesOf(event)
    while (this.#bytes > this.#bounds.maxBytes && this.#first <= this.#last) this.#drop()
  }

  /** The encoded event; encoded once for each encoder while it is cached. */
  encode(event: Event, encode: Encoder): Buffer {
    let encoded = this.#encoded.get(event.sequence)
    let data = encoded?.get(encode)
    if (data) return data
    data = encode(event)
    if (this.at(event.sequence) !== event) return data
    if (!encoded) {
      encoded = new SmallMap()
      this.#encoded.set(event.sequence, encoded)
    }
    encoded.set(encode, data)
    this.#bytes += data.length
    return data
  }

  #drop(): void {
    const sequence = this.#first++
    const slot = sequence % this.#ring.length
    const event = this.#ring[slot]
    this.#ring[slot] = undefined
    if (!event) return
    this.#bytes -= bytesOf(event)
    for (const data of this.#encoded.get(sequence)?.values() ?? []) this.#bytes -= data.length
    this.#encoded.delete(sequence)
  }
}

/** Characters of the topic, and bytes of the payload and the properties. */
function bytesOf({ topic, payload, properties }: Event): number {
  return topic.length + payload.length + (properties?.length ?? 0)
}
