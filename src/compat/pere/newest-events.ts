import { GatewayError } from '../../base/errors.js'
import { type Event, isGapMarker } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** What is read of the journal at once. */
const portion = { limit: 256, maxBytes: 1024 ** 2 }

/**
 * The newest events of a channel, in their order.
 *
 * @param count how many at most
 * @throws {GatewayError} rejects with `journal-unavailable`
 */
export async function* newestEvents(journal: Journal, channel: string, count: number): AsyncGenerator<Event> {
  const filters = [channel]
  const through = journal.head
  try {
    let position = await journal.latest(filters, count)
    while (position < through) {
      const read = await journal.read({ filters, after: position, through, ...portion })
      for (const event of read.events) if (!isGapMarker(event)) yield event
      position = read.position
    }
  } catch (error) {
    throw new GatewayError('journal-unavailable', { cause: error })
  }
}
