/**
 * Calls functions at the end of the current event-loop tick, in order: one `setImmediate` for all of them, after all that was read in this
 * tick.
 */
export class TickScheduler {
  #due: (() => void)[] = []

  add(task: () => void): void {
    if (this.#due.push(task) === 1) setImmediate(this.#run)
  }

  readonly #run = (): void => {
    const due = this.#due
    this.#due = []
    for (const task of due) task()
  }
}

/** Time for delivering messages in one event-loop tick, in milliseconds. The last message may exceed it. */
const sliceLength = 5

/** Bounds the time of one kind of work in each event-loop tick. */
export class TickSlice {
  readonly #tick: TickScheduler
  readonly #onTick: () => void
  /** End of this tick's slice; `undefined` before it begins. */
  #end: number | undefined

  /** @param onTick called at the end of each tick with a slice: the next slice may begin */
  constructor(tick: TickScheduler, onTick: () => void) {
    this.#tick = tick
    this.#onTick = onTick
  }

  /** Whether this tick's slice is over. The first call begins it. */
  get isOver(): boolean {
    const now = performance.now()
    if (this.#end !== undefined) return now >= this.#end
    this.#end = now + sliceLength
    this.#tick.add(this.#endTick)
    return false
  }

  readonly #endTick = (): void => {
    this.#end = undefined
    this.#onTick()
  }
}
