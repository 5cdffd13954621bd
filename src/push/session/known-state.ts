import { createHash } from 'node:crypto'
import type { Message } from '../event.js'
import type { Journal } from '../journal.js'

/** How long after the last one a retained message may still be one of those that come with a subscription; in milliseconds. */
const patience = 5000

/**
 * The retained messages that the journal has, from before a subscription: the broker tells all that it has once more, and
 * what is the same is no event. What is another has been published in between, and is one.
 *
 * A message with RETAIN may as well be live. Each topic is looked at once, and only until no more come: so what passes for
 * state although it is news says again what was said before.
 */
export class KnownState {
  readonly #digests: Map<string, string>
  #timer: NodeJS.Timeout | undefined

  private constructor(digests: Map<string, string>) {
    this.#digests = digests
  }

  /** Reads them. A digest of each is kept, and so there are as many as the journal has topics with state. */
  static async read(journal: Pick<Journal, 'retained' | 'head'>, topics: readonly string[]): Promise<KnownState> {
    const digests = new Map<string, string>()
    for await (const events of journal.retained(topics, { after: 0, through: journal.head })) {
      for (const { topic, payload } of events) digests.set(topic, digest(payload))
    }
    return new KnownState(digests)
  }

  /** Call when the broker has the subscription: from now on, they come. */
  open(): void {
    this.#timer = setTimeout(() => this.#digests.clear(), patience).unref()
  }

  /** Whether `message` tells a state that the journal has. */
  has({ topic, payload, retain }: Message): boolean {
    if (!retain || this.#digests.size === 0) return false
    const known = this.#digests.get(topic)
    if (known === undefined) return false
    this.#digests.delete(topic)
    this.#timer?.refresh()
    return known === digest(payload)
  }
}

function digest(payload: Buffer): string {
  return createHash('sha256').update(payload).digest('base64')
}
