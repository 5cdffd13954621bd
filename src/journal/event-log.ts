import type { Event } from './event.js'
import { type ShareBounds, sizeOf } from './journal.js'
import type { ShareExtent } from './shares.js'

/** The events of one share of a journal in memory, the oldest first. */
export class EventLog implements ShareExtent {
  readonly #bounds: ShareBounds
  /** Evicted entries, which are `undefined`, and then the events. */
  #events: (Event | undefined)[] = []
  #evictedCount = 0
  #bytes = 0
  #evicted = 0

  readonly #onEvicted: ((event: Event) => void) | undefined

  /** @param onEvicted called with each event that `evict` removes */
  constructor(bounds: ShareBounds, onEvicted?: (event: Event) => void) {
    this.#bounds = bounds
    this.#onEvicted = onEvicted
  }

  get evicted(): number {
    return this.#evicted
  }

  get oldest(): number {
    return this.#events[this.#evictedCount]?.sequence ?? Number.POSITIVE_INFINITY
  }

  get size(): number {
    return this.#events.length - this.#evictedCount
  }

  /** @param index from 0, the oldest, to below `size` */
  at(index: number): Event | undefined {
    return this.#events[this.#evictedCount + index]
  }

  push(event: Event): void {
    this.#events.push(event)
    this.#bytes += sizeOf(event)
  }

  /** The index of the first event after `sequence`; `size` if there is none. */
  indexAfter(sequence: number): number {
    let [low, high] = [this.#evictedCount, this.#events.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#events[middle]?.sequence ?? 0) > sequence) high = middle
      else low = middle + 1
    }
    return low - this.#evictedCount
  }

  /** Whether there are events beyond the bounds at the time `now`. */
  isOver(now: number): boolean {
    const oldest = this.#events[this.#evictedCount]
    if (!oldest) return false
    const { maxEvents, maxBytes, maxAge } = this.#bounds
    return this.size > maxEvents || this.#bytes > maxBytes || oldest.time < now - maxAge
  }

  /** Evicts up to `count` of the oldest events beyond the bounds. */
  evict(count: number, now: number): void {
    for (let left = count; left > 0 && this.isOver(now); left--) {
      const event = this.#shift()
      if (!event) break
      this.#onEvicted?.(event)
    }
    this.#compact()
  }

  /** Removes the events up to `sequence`, or notes that they are missing. */
  evictThrough(sequence: number): void {
    while (this.oldest <= sequence) this.#shift()
    this.#evicted = Math.max(this.#evicted, sequence)
    this.#compact()
  }

  #shift(): Event | undefined {
    const event = this.#events[this.#evictedCount]
    if (!event) return undefined
    this.#bytes -= sizeOf(event)
    this.#events[this.#evictedCount++] = undefined
    this.#evicted = event.sequence
    return event
  }

  /** Removes the evicted entries when they are half of all, so that each event is moved once on average. */
  #compact(): void {
    if (this.#evictedCount < 1024 || this.#evictedCount * 2 < this.#events.length) return
    this.#events = this.#events.slice(this.#evictedCount)
    this.#evictedCount = 0
  }
}

/** The events of several logs after a sequence, in order; or those up to it, the newest first. */
export class MergedLogs {
  readonly #heads: { readonly log: EventLog; index: number }[]
  readonly #step: 1 | -1

  constructor(logs: readonly EventLog[], sequence: number, order: 'oldest first' | 'newest first' = 'oldest first') {
    this.#step = order === 'oldest first' ? 1 : -1
    const offset = this.#step === 1 ? 0 : -1
    this.#heads = logs.map(log => ({ log, index: log.indexAfter(sequence) + offset }))
  }

  /** Takes the next event; `undefined` without one. */
  next(): Event | undefined {
    let next: { readonly log: EventLog; index: number } | undefined
    let found: Event | undefined
    for (const head of this.#heads) {
      const event = head.index < 0 ? undefined : head.log.at(head.index)
      if (!event || (found && (event.sequence - found.sequence) * this.#step > 0)) continue
      next = head
      found = event
    }
    if (next) next.index += this.#step
    return found
  }
}
