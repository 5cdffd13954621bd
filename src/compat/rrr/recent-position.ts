import type { Event } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** How long a found position stays valid, as a fraction of the age. */
const validity = 1 / 60

export interface RecentPositionOptions {
  readonly journal: Journal
  /** In milliseconds. */
  readonly maxAge: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/**
 * Finds the position in a journal after which all events are younger than `maxAge`; slightly older ones may be included. A
 * binary search, repeated only when the last result is no longer valid.
 */
export class RecentPosition {
  readonly #options: RecentPositionOptions
  #position = 0
  #foundAt = Number.NEGATIVE_INFINITY
  #finding: Promise<number> | undefined

  constructor(options: RecentPositionOptions) {
    this.#options = options
  }

  /** The sequence to read on from. Rejects as `Journal.read`. */
  async find(): Promise<number> {
    const { maxAge, now } = this.#options
    const since = now() - this.#foundAt
    if (since >= 0 && since < maxAge * validity) return this.#position
    this.#finding ??= this.#find().finally(() => {
      this.#finding = undefined
    })
    return this.#finding
  }

  async #find(): Promise<number> {
    const { journal, maxAge, now } = this.#options
    const at = now()
    let [low, high] = [Math.max(this.#position, journal.first - 1), journal.head]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      const event = await this.#nextAfter(middle, high)
      if (!event || event.time >= at - maxAge) high = middle
      else low = event.sequence
    }
    this.#position = low
    this.#foundAt = at
    return low
  }

  /** The oldest event after a sequence; `undefined` if there is none up to `through`. */
  async #nextAfter(sequence: number, through: number): Promise<Event | undefined> {
    const { journal } = this.#options
    // The next event usually has the next sequence; otherwise it may be far away.
    for (let [after, end] = [sequence, sequence + 1]; after < through; end = through) {
      const { events, position } = await journal.read({ after, through: end, limit: 1, maxBytes: 1 })
      if (events[0]) return events[0]
      after = position
    }
    return undefined
  }
}
