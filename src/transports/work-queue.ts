import type { SliceMonitor } from '../base/slice-monitor.js'

/** Somebody who has something to do, piece by piece. */
export interface Worker {
  /** Those of the same name share one turn: a network, so that a client with a hundred connections waits for itself. */
  readonly sharesTurnWith?: string
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
  /** By what they share a turn with; the next one first, among those and in each. */
  readonly #waiting = new Map<string, Set<Worker>>()
  readonly #slices: SliceMonitor | undefined
  #isScheduled = false

  /** @param slices told of each piece */
  constructor(slices?: SliceMonitor) {
    this.#slices = slices
  }

  /** Has it work in one of the next turns; nothing happens where it waits already. */
  add(worker: Worker): void {
    const { sharesTurnWith = '' } = worker
    const others = this.#waiting.get(sharesTurnWith)
    if (others) others.add(worker)
    else this.#waiting.set(sharesTurnWith, new Set([worker]))
    this.#schedule()
  }

  delete(worker: Worker): void {
    const { sharesTurnWith = '' } = worker
    const group = this.#waiting.get(sharesTurnWith)
    if (group?.delete(worker) && group.size === 0) this.#waiting.delete(sharesTurnWith)
  }

  /**
   * Has `steps` done, each of which is a piece.
   *
   * @returns rejects with what a step throws
   */
  run<T>(sharesTurnWith: string, steps: Iterator<undefined, T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const work = (): boolean => {
        try {
          const { done, value } = steps.next()
          if (done) resolve(value)
          return !done
        } catch (error) {
          reject(error)
          return false
        }
      }
      this.add({ sharesTurnWith, work })
    })
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#run)
  }

  readonly #run = (): void => {
    this.#isScheduled = false
    const until = performance.now() + longestTurn
    for (const [name, group] of this.#waiting) {
      const [worker] = group
      if (worker) this.#work(worker, name, group)
      if (performance.now() >= until) break
    }
    if (this.#waiting.size > 0) this.#schedule()
  }

  #work(worker: Worker, name: string, group: Set<Worker>): void {
    group.delete(worker)
    // Behind all others that wait.
    this.#waiting.delete(name)
    if (group.size > 0) this.#waiting.set(name, group)
    this.#slices?.begin('web socket', worker)
    if (worker.work()) this.add(worker)
  }
}
