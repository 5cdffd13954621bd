import type { Event } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** How long a place that was found is good, as a part of the age. */
const goodFor = 1 / 60

export interface RecentPositionOptions {
  readonly journal: Journal
  /** In milliseconds. */
  readonly maxAge: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/**
 * Finds the place in a journal after which all is younger than an age; what is a little older may come with it. Looked for
 * once in a while, by halves, whoever asks how often.
 */
export class RecentPosition {
  readonly #options: RecentPositionOptions
  #place = 0
  #foundAt = Number.NEGATIVE_INFINITY
  #finding: Promise<number> | undefined

  constructor(options: RecentPositionOptions) {
    this.#options = options
  }

  /** The sequence to read on from. Rejects as `Journal.read`. */
  async find(): Promise<number> {
    const { maxAge, now } = this.#options
    const since = now() - this.#foundAt
    if (since >= 0 && since < maxAge * goodFor) return this.#place
    this.#finding ??= this.#find().finally(() => {
      this.#finding = undefined
    })
    return this.#finding
  }

  async #find(): Promise<number> {
    const { journal, maxAge, now } = this.#options
    const at = now()
    let [low, high] = [Math.max(this.#place, journal.first - 1), journal.head]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      const event = await this.#nextAfter(middle, high)
      if (!event || event.time >= at - maxAge) high = middle
      else low = event.sequence
    }
    this.#place = low
    this.#foundAt = at
    return low
  }

  /** The oldest event after a sequence that is still there; `undefined` where there is none up to `through`. */
  async #nextAfter(sequence: number, through: number): Promise<Event | undefined> {
    const { journal } = this.#options
    // It is there as a rule; where it is not, the next may be far.
    for (let [after, end] = [sequence, sequence + 1]; after < through; end = through) {
      const { events, position } = await journal.read({ after, through: end, limit: 1, maxBytes: 1 })
      if (events[0]) return events[0]
      after = position
    }
    return undefined
  }
}
