import type { Event } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** Bounds of one read from the journal. */
const batch = { limit: 256, maxBytes: 256 * 1024 }

/** Topics that one read filters by; with more, the scan reads the events of all handles and skips the others. */
const maxTopics = 100
const everyHandle = 'push/+'

/** A handle that looks for the events of its topic. */
export interface Scanner {
  readonly topic: string
  /** The sequence up to which it has scanned. */
  readonly position: number
  /** Called with each event of its topic, in order; after a failed scan, possibly again. */
  found(event: Event): void
  /** The scan has reached this sequence. */
  advance(sequence: number): void
}

/**
 * Scans the journal once for all scanners that join while the scan before it runs: after a restart, ten thousand browsers
 * reconnect, and all of them need the same minute of events.
 */
export class BatchedScan {
  readonly #journal: Journal
  #next: { readonly members: Scanner[]; readonly done: Promise<void> } | undefined
  #last: Promise<void> = Promise.resolve()

  constructor(journal: Journal) {
    this.#journal = journal
  }

  /** Resolves when `member` has got every event up to the journal's head at the time of the call. Rejects as `Journal.read`. */
  async join(member: Scanner): Promise<void> {
    this.#next ??= this.#begin()
    this.#next.members.push(member)
    await this.#next.done
  }

  #begin(): { members: Scanner[]; done: Promise<void> } {
    const members: Scanner[] = []
    const done = this.#last.then(async () => {
      this.#next = undefined
      await this.#scan(members)
    })
    // Its members get the error; the next scan starts nevertheless.
    this.#last = done.catch(() => {})
    return { members, done }
  }

  async #scan(members: readonly Scanner[]): Promise<void> {
    const topics = new Map<string, Scanner[]>()
    for (const member of members) topics.set(member.topic, [...(topics.get(member.topic) ?? []), member])
    const filters = topics.size > maxTopics ? [everyHandle] : [...topics.keys()]
    const through = this.#journal.head
    let after = members.reduce((least, { position }) => Math.min(least, position), through)
    while (after < through) {
      const { events, position } = await this.#journal.read({ filters, after, through, ...batch })
      for (const event of events) for (const member of topics.get(event.topic) ?? []) member.found(event)
      after = position
      // A journal in memory resolves in the same tick.
      await new Promise(setImmediate)
    }
    for (const member of members) member.advance(through)
  }
}
