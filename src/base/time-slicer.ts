import type { SliceCause, SliceMonitor } from './slice-monitor.js'

/** The longest that one task runs before others have their turn, in milliseconds. */
const sliceLength = 4

/**
 * Shares the event loop among long tasks (scans, bulk deliveries, big documents): one slice of one task in each turn of the loop, in the
 * order in which the tasks asked, with input and output of all clients between two slices. However many tasks there are, a turn gets no
 * longer than one slice.
 *
 *     await slicer.next()
 *     for (const entry of entries) {
 *       if (slicer.isOver) await slicer.next()
 *       …
 *     }
 */
export class TimeSlicer {
  readonly #length: number
  readonly #now: () => number
  readonly #slices: SliceMonitor | undefined
  readonly #waiting: (() => void)[] = []
  #end = Number.NEGATIVE_INFINITY

  /**
   * @param length of one slice, in milliseconds
   * @param slices gets the cause of each slice
   */
  constructor(length: number = sliceLength, now: () => number = () => performance.now(), slices?: SliceMonitor) {
    this.#length = length
    this.#now = now
    this.#slices = slices
  }

  /** Tasks that wait for a slice. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Whether the running slice is used up. A task that began without `next` has none. */
  get isOver(): boolean {
    return this.#now() >= this.#end
  }

  /** Resolves when a slice begins for the caller. Never rejects. */
  next(cause: SliceCause = 'other task'): Promise<void> {
    return new Promise(resolve => {
      const begin = (): void => {
        this.#slices?.begin(cause)
        resolve()
      }
      if (this.#waiting.push(begin) === 1) setImmediate(this.#run)
    })
  }

  readonly #run = (): void => {
    const begin = this.#waiting.shift()
    this.#end = this.#now() + this.#length
    begin?.()
    if (this.#waiting.length > 0) setImmediate(this.#run)
  }
}
