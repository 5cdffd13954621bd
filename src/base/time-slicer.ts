import type { SliceCause, SliceMonitor } from './slice-monitor.js'
import { TickBudget, type TickShare } from './tick-budget.js'

/** Connections that one slice ends: some 5 ms. */
const maxEndings = 10

/**
 * Divides long tasks (scans, bulk deliveries, large documents) into slices: one slice of one task in each tick of the event loop, in the
 * order of the calls, with input and output of all clients between two slices.
 *
 *     await slicer.next()
 *     for (const entry of entries) {
 *       if (slicer.isOver) await slicer.next()
 *       …
 *     }
 */
export class TimeSlicer {
  readonly #share: TickShare
  readonly #now: () => number
  readonly #slices: SliceMonitor | undefined
  readonly #waiting: (() => void)[] = []
  #end = Number.NEGATIVE_INFINITY
  /** Connections that the running slice has ended. */
  #endings = 0

  /**
   * @param share its part of each tick
   * @param slices gets the cause of each slice
   */
  constructor(
    share: TickShare = new TickBudget().open(),
    now: () => number = () => performance.now(),
    slices?: SliceMonitor,
  ) {
    this.#share = share
    this.#now = now
    this.#slices = slices
  }

  /** Tasks that wait for a slice. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Whether the running slice is over. */
  get isOver(): boolean {
    return this.#now() >= this.#end
  }

  /**
   * Call when the running slice has ended a connection. Most of that work follows later in the same tick of the event loop, so a slice is over after
   * some of them.
   */
  endedConnection(): void {
    this.#endings += 1
    if (this.#endings >= maxEndings) this.#end = Number.NEGATIVE_INFINITY
  }

  /** Resolves when a slice starts for the caller. Never rejects. */
  next(cause: SliceCause = 'other task'): Promise<void> {
    return new Promise(resolve => {
      const begin = (): void => {
        this.#slices?.begin(cause)
        resolve()
      }
      if (this.#waiting.push(begin) > 1) return
      this.#share.isBusy = true
      setImmediate(this.#run)
    })
  }

  readonly #run = (): void => {
    const begin = this.#waiting.shift()
    this.#end = this.#now() + this.#share.length
    this.#endings = 0
    begin?.()
    if (this.#waiting.length > 0) setImmediate(this.#run)
    else this.#share.isBusy = false
  }
}
