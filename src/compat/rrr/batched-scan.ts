import type { Event } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** What is read of the journal in one go. */
const portion = { limit: 256, maxBytes: 256 * 1024 }

/** Who names as many topics gets those; for more, all handles' events are read, and the others' left. */
const mostTopics = 100
const everyHandle = 'push/+'

/** Somebody who wants to know what has come for a topic. */
export interface Scanner {
  readonly topic: string
  /** The place after which they have not looked. */
  readonly position: number
  /** An event of their topic, in order; after a look that failed, they may be told of one again. */
  found(event: Event): void
  /** They have been told of all up to this place. */
  advance(sequence: number): void
}

/**
 * Looks through the journal for all who ask while it still looks for others, together: when ten thousand browsers come back
 * after a restart, each of them has a minute to be looked through, and it is the same one.
 */
export class BatchedScan {
  readonly #journal: Journal
  #next: { readonly members: Scanner[]; readonly done: Promise<void> } | undefined
  #last: Promise<void> = Promise.resolve()

  constructor(journal: Journal) {
    this.#journal = journal
  }

  /** Resolves when `member` has been told of all that there was when it asked. Rejects as `Journal.read`. */
  async join(member: Scanner): Promise<void> {
    this.#next ??= this.#begin()
    this.#next.members.push(member)
    await this.#next.done
  }

  #begin(): { members: Scanner[]; done: Promise<void> } {
    const members: Scanner[] = []
    const done = this.#last.then(async () => {
      this.#next = undefined
      await this.#look(members)
    })
    // Those who wait for it are told; the next look does not depend on it.
    this.#last = done.catch(() => {})
    return { members, done }
  }

  async #look(members: readonly Scanner[]): Promise<void> {
    const topics = new Map<string, Scanner[]>()
    for (const member of members) topics.set(member.topic, [...(topics.get(member.topic) ?? []), member])
    const filters = topics.size > mostTopics ? [everyHandle] : [...topics.keys()]
    const through = this.#journal.head
    let after = members.reduce((least, { position }) => Math.min(least, position), through)
    while (after < through) {
      const { events, position } = await this.#journal.read({ filters, after, through, ...portion })
      for (const event of events) for (const member of topics.get(event.topic) ?? []) member.found(event)
      after = position
      // A journal in memory answers in the same turn of the event loop.
      await new Promise(setImmediate)
    }
    for (const member of members) member.advance(through)
  }
}
