import type { SliceMonitor } from '../base/slice-monitor.js'

export interface Flushable {
  flush(): void
}

/**
 * Subscribers that are flushed in one tick of the event loop, at least: some 50 µs. A message takes several ticks on its way to the journal, and each of
 * them waits for these.
 */
const minFlushes = 4
/** Time for more of them, as a share of the tick's other work: so they keep up with it. */
const share = 0.5
/** Flushed subscribers that stay in the list before it is shortened. */
const maxFlushed = 4096

/**
 * Flushes pending subscribers: the first ones at once, the others a few per tick of the event loop.
 *
 * Writing to a thousand connections takes 8 ms. Messages that are published meanwhile are not delayed by it, and leave in the same write for
 * subscribers that are still pending.
 */
export class WriteQueue {
  readonly #slices: SliceMonitor | undefined
  #pending: Flushable[] = []
  #next = 0
  #running = false
  /** When the other work of this tick began, in milliseconds. */
  #since = 0

  /** @param slices gets the cause of each tick */
  constructor(slices?: SliceMonitor) {
    this.#slices = slices
  }

  /** Flushes it after the events that are dispatched together with this one, or in one of the next ticks. */
  add(subscriber: Flushable): void {
    this.#pending.push(subscriber)
    if (this.#running) return
    this.#running = true
    this.#since = performance.now()
    // After the receipts of the dispatched events, which are awaited by promises.
    process.nextTick(this.#run)
  }

  readonly #run = (): void => {
    this.#slices?.begin('push writes')
    const began = performance.now()
    const until = began + share * (began - this.#since)
    let time = began
    do {
      this.#flushSome()
      time = performance.now()
    } while (this.#hasMore && time < until)
    this.#since = time
    if (this.#hasMore) {
      if (this.#next >= maxFlushed) this.#shorten()
      setImmediate(this.#run)
      return
    }
    this.#shorten()
    this.#running = false
  }

  get #hasMore(): boolean {
    return this.#next < this.#pending.length
  }

  #flushSome(): void {
    for (let left = minFlushes; left > 0 && this.#hasMore; left--) this.#pending[this.#next++]?.flush()
  }

  #shorten(): void {
    this.#pending = this.#pending.slice(this.#next)
    this.#next = 0
  }
}
