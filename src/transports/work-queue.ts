import { networkOf } from '../access/limits.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { TickBudget, type TickShare } from '../base/tick-budget.js'
import type { Caller } from '../http/api-gate.js'

/** Work that is done step by step. */
export interface Worker {
  /** Workers of one group take turns as one: the connections of a network. */
  readonly group?: string
  /** Does one step. @returns whether another one can be done now. It must not throw. */
  work(): boolean
}

/**
 * Does the steps of many workers in turn, group by group, so that no client delays others by its number of requests: a change of a hundred
 * filters takes some 0.7 ms, and one read of a socket may bring 25 of them.
 */
export class WorkQueue {
  /** By group; the next one first. */
  readonly #groups = new Map<string, Set<Worker>>()
  readonly #share: TickShare
  readonly #slices: SliceMonitor | undefined
  #isScheduled = false

  /**
   * @param share its part of each tick of the event loop; the last step may take longer
   * @param slices gets the cause of each step
   */
  constructor(share: TickShare = new TickBudget().open(), slices?: SliceMonitor) {
    this.#share = share
    this.#slices = slices
  }

  /** Schedules a worker. Idempotent. */
  add(worker: Worker): void {
    const { group = '' } = worker
    const others = this.#groups.get(group)
    if (others) others.add(worker)
    else this.#groups.set(group, new Set([worker]))
    this.#schedule()
  }

  delete(worker: Worker): void {
    const { group = '' } = worker
    const workers = this.#groups.get(group)
    if (workers?.delete(worker) && workers.size === 0) this.#groups.delete(group)
  }

  /**
   * Runs an iterator step by step.
   *
   * @returns what it returns; rejects with what a step throws
   */
  run<T>(group: string, steps: Iterator<undefined, T>): Promise<T> {
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
      this.add({ group, work })
    })
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#share.isBusy = true
    setImmediate(this.#run)
  }

  readonly #run = (): void => {
    this.#isScheduled = false
    const until = performance.now() + this.#share.length
    for (const [name, workers] of this.#groups) {
      const [worker] = workers
      if (worker) this.#step(worker, name, workers)
      if (performance.now() >= until) break
    }
    if (this.#groups.size > 0) this.#schedule()
    else this.#share.isBusy = false
  }

  #step(worker: Worker, name: string, workers: Set<Worker>): void {
    workers.delete(worker)
    // Its group goes behind all others.
    this.#groups.delete(name)
    if (workers.size > 0) this.#groups.set(name, workers)
    this.#slices?.begin('web socket', worker)
    if (worker.work()) this.add(worker)
  }
}

/** Bytes of a body that is parsed at once: at worst within 1 ms. */
const smallBody = 16 * 1024

/**
 * Parses a body by `steps`: a small one at once, a larger one in the work queue, in the group of the client's network.
 *
 * @throws as the steps do, or rejects with it
 */
export function readBody<T>(
  body: Buffer,
  { client }: Pick<Caller, 'client'>,
  queue: WorkQueue,
  steps: Iterator<undefined, T>,
): T | Promise<T> {
  if (body.length > smallBody) return queue.run(networkOf(client.address), steps)
  for (;;) {
    const { done, value } = steps.next()
    if (done) return value
  }
}
