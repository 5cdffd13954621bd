import type { SliceCause, SliceMonitor } from './slice-monitor.js'
import { TickBudget, type TickShare } from './tick-budget.js'

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
    begin?.()
    if (this.#waiting.length > 0) setImmediate(this.#run)
    else this.#share.isBusy = false
  }
}
