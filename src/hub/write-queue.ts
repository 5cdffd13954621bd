import type { SliceMonitor } from '../base/slice-monitor.js'

/** Somebody for whom something waits to be written. */
export interface Flushable {
  flush(): void
}

/** How many write in one turn of the event loop, at least: some 0.1 ms. */
const perTurn = 16
/** How long they may, as a part of what the rest of the turn took: so they get on where that is much. */
const share = 0.5
/** How many of those that have written are kept in the list. */
const mostWritten = 4096

/**
 * Has those write for whom something waits: a few in each turn of the event loop, and the others in the next ones.
 *
 * To write to a thousand connections takes 8 ms. What is published meanwhile waits for none of that, and what comes for
 * those whose turn is yet to be leaves in the same write: 20 messages to 1000 event streams, which the broker brings one in
 * each turn, took 9.4 µs each with all of them in one turn, and take 2.4 µs so.
 */
export class WriteQueue {
  readonly #slices: SliceMonitor | undefined
  #waiting: Flushable[] = []
  #next = 0
  #running = false
  /** When the turn's other work began, in milliseconds. */
  #since = 0

  /** @param slices told of each turn */
  constructor(slices?: SliceMonitor) {
    this.#slices = slices
  }

  /** Has it write in this turn of the event loop, or in one of the next. */
  add(writer: Flushable): void {
    this.#waiting.push(writer)
    if (this.#running) return
    this.#running = true
    this.#since = performance.now()
    setImmediate(this.#run)
  }

  readonly #run = (): void => {
    this.#slices?.begin('push writes')
    const began = performance.now()
    const until = began + share * (began - this.#since)
    let time = began
    do {
      this.#writeSome()
      time = performance.now()
    } while (this.#isLeft && time < until)
    this.#since = time
    if (this.#isLeft) {
      if (this.#next >= mostWritten) this.#forget()
      setImmediate(this.#run)
      return
    }
    this.#forget()
    this.#running = false
  }

  get #isLeft(): boolean {
    return this.#next < this.#waiting.length
  }

  #writeSome(): void {
    for (let left = perTurn; left > 0 && this.#isLeft; left--) this.#waiting[this.#next++]?.flush()
  }

  #forget(): void {
    this.#waiting = this.#waiting.slice(this.#next)
    this.#next = 0
  }
}
