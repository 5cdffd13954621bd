import type { Event } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** How long a found position stays valid, as a fraction of the age. */
const validity = 1 / 60

/** The sequence to read on from. Rejects as `Journal.read`. */
export type RecentPosition = () => Promise<number>

/**
 * Finds the position in a journal after which all events are younger than `maxAge`; slightly older ones may be included. A
 * binary search, repeated only when the last result is no longer valid.
 *
 * @param maxAge in milliseconds
 * @param now milliseconds since 1970
 */
export function recentPosition(journal: Journal, maxAge: number, now: () => number): RecentPosition {
  let position = 0
  let foundAt = Number.NEGATIVE_INFINITY
  let finding: Promise<number> | undefined
  const find = async (): Promise<number> => {
    const at = now()
    let [low, high] = [Math.max(position, journal.first - 1), journal.head]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      const event = await nextAfter(journal, middle, high)
      if (!event || event.time >= at - maxAge) high = middle
      else low = event.sequence
    }
    position = low
    foundAt = at
    return low
  }
  return async () => {
    const since = now() - foundAt
    if (since >= 0 && since < maxAge * validity) return position
    finding ??= find().finally(() => {
      finding = undefined
    })
    return finding
  }
}

/** The oldest event after a sequence; `undefined` if there is none up to `through`. */
async function nextAfter(journal: Journal, sequence: number, through: number): Promise<Event | undefined> {
  // The next event usually has the next sequence; otherwise it may be far away.
  for (let [after, end] = [sequence, sequence + 1]; after < through; end = through) {
    const { events, position } = await journal.read({
      after,
      through: end,
      limit: 1,
      maxBytes: 1,
      includesExpired: true,
    })
    if (events[0]) return events[0]
    after = position
  }
  return undefined
}
