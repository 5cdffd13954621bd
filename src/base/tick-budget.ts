/** Time of one event-loop tick for the queues of a budget together, in milliseconds. */
const tickLength = 4
/** Time of each queue while connections are accepted, in milliseconds. */
const acceptingLength = 0.5

/** One queue's part of a budget. */
export interface TickShare {
  /** Whether the queue has work. */
  isBusy: boolean
  /** Length of its slice in this tick, in milliseconds. */
  readonly length: number
}

/**
 * Divides the time for queued work in one event-loop tick: each queue that has work gets an equal slice. The last step of a slice may exceed it.
 *
 * While connections are accepted, slices are as short as possible: libuv accepts one connection of a listening socket in each tick, and clients behind
 * a client that opens many wait for as many ticks.
 */
export class TickBudget {
  #busy = 0
  /** Ticks in which slices are short, with the current one. */
  #acceptingTicks = 0

  /** Adds a queue. */
  open(): TickShare {
    const budget = this
    let isBusy = false
    return {
      get isBusy() {
        return isBusy
      },
      set isBusy(value) {
        if (value !== isBusy) budget.#busy += value ? 1 : -1
        isBusy = value
      },
      get length() {
        return budget.#acceptingTicks > 0 ? acceptingLength : tickLength / Math.max(1, budget.#busy)
      },
    }
  }

  /** Call for each accepted connection. */
  accepted(): void {
    if (this.#acceptingTicks === 0) setImmediate(this.#onTick)
    this.#acceptingTicks = 2
  }

  readonly #onTick = (): void => {
    if (--this.#acceptingTicks > 0) setImmediate(this.#onTick)
  }
}
