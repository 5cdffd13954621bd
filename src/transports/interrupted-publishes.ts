import type { Event } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'
import type { TopicPredicate } from '../topics/match.js'

/** Bounds of one read from the journal. */
const batch = { limit: 100, maxBytes: 1024 ** 2 }

/**
 * Finds the messages, of those that a gateway has published one after the other until it ended, which have become events: the first event with
 * the topic and payload of a message counts. A message that push does not cover was published if a later one was.
 *
 * @param after the journal's position before the first
 * @param isPushed whether push covers a topic
 * @returns their events, `null` for those that push does not cover; empty if none is found
 */
export async function findPublished(
  journal: Journal,
  messages: readonly Message[],
  after: number,
  isPushed: TopicPredicate,
): Promise<(Event | null)[]> {
  const found: (Event | null)[] = []
  let uncovered: null[] = []
  for (const message of messages) {
    if (!isPushed(message.topic)) {
      uncovered.push(null)
      continue
    }
    const event = await findEvent(journal, message, after)
    if (!event) break
    found.push(...uncovered, event)
    uncovered = []
    after = event.sequence
  }
  return found
}

async function findEvent(journal: Journal, { topic, payload }: Message, after: number): Promise<Event | undefined> {
  for (const through = journal.head; after < through; ) {
    const { events, position } = await journal.read({
      filters: [topic],
      after,
      through,
      ...batch,
      includesExpired: true,
    })
    const event = events.find(each => each.topic === topic && each.payload.equals(payload))
    if (event) return event
    after = position
    // A journal in memory resolves in the same tick.
    await new Promise(setImmediate)
  }
  return undefined
}
