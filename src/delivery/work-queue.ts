/** Somebody who has something to do, piece by piece. */
export interface Worker {
  /** Does one piece, and tells whether there is another that can be done now. It must not throw. */
  work(): boolean
}

/** For how long pieces are done in one turn of the event loop, in milliseconds; the last one may take longer. */
const longestTurn = 2

/**
 * Has many do what they have to do in turns, one piece each: so that what a hundred clients ask for at the same time, or
 * one in a hundred messages, holds up nobody else. A change of a hundred filters takes some 0.7 ms, and one read of a
 * socket may bring 25 of them: a hundred sockets stopped everything for 2 s.
 */
export class WorkQueue {
  readonly #waiting = new Set<Worker>()
  #isScheduled = false

  /** Has it work in one of the next turns; nothing happens where it waits already. */
  add(worker: Worker): void {
    this.#waiting.add(worker)
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#run)
  }

  delete(worker: Worker): void {
    this.#waiting.delete(worker)
  }

  readonly #run = (): void => {
    this.#isScheduled = false
    const until = performance.now() + longestTurn
    for (const worker of this.#waiting) {
      this.#waiting.delete(worker)
      // Behind all others that wait.
      if (worker.work()) this.add(worker)
      if (performance.now() >= until) break
    }
    const [next] = this.#waiting
    if (next) this.add(next)
  }
}
