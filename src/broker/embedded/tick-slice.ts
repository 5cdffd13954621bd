import type { TickScheduler } from './tick-scheduler.js'

/** How long messages are handed to subscribers in one turn of the event loop, in milliseconds, besides the one that is over it. */
const sliceLength = 5

/** The share of each turn of the event loop that one kind of work has. */
export class TickSlice {
  readonly #tick: TickScheduler
  readonly #onTurn: () => void
  readonly #length: number
  /** When it is over; `undefined` where this turn's has not begun. */
  #end: number | undefined

  /** @param onTurn called at the end of each turn in which work was done: the next slice may begin */
  constructor(tick: TickScheduler, onTurn: () => void, length: number = sliceLength) {
    this.#tick = tick
    this.#onTurn = onTurn
    this.#length = length
  }

  /** Whether this turn's slice is used up. It begins when this is asked first. */
  get isOver(): boolean {
    const now = performance.now()
    if (this.#end !== undefined) return now >= this.#end
    this.#end = now + this.#length
    this.#tick.add(this.#turn)
    return false
  }

  readonly #turn = (): void => {
    this.#end = undefined
    this.#onTurn()
  }
}
