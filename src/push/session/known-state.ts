import type { Message } from '../event.js'
import type { Journal } from '../journal.js'
import { topicPredicate } from '../topics.js'
import { type Digests, digest, readDigests } from './state-digests.js'

/** How long nothing that is retained has to come until all has that comes with a subscription; in milliseconds. */
const patience = 5000

/** Topics of which the state is known although the journal does not have it: each may come again for another filter. */
const mostNew = 100_000

/**
 * The retained messages that the journal has, from before a subscription: the broker tells all that it has once more, and
 * what is the same is no event. What is another has been published in between, and is one.
 *
 * A message with RETAIN may as well be live. Each topic is looked at once for each filter that matches it, as brokers send
 * it for each, and only until no more come: so what passes for state although it is news says again what was said before.
 */
export class KnownState {
  readonly #filters: readonly ((topic: string) => boolean)[]
  /** The state of each topic, and how many times it is yet to come. */
  readonly #states = new Map<string, { readonly digest: string | undefined; readonly left: number }>()
  readonly #most: number
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  private constructor(digests: Digests, topics: readonly string[]) {
    this.#most = digests.size + mostNew
    this.#filters = topics.map(topic => topicPredicate([topic]))
    for (const [topic, known] of digests) this.#states.set(topic, { digest: known, left: this.#timesOf(topic) })
  }

  /** Reads them. */
  static async read(journal: Pick<Journal, 'retained' | 'head'>, topics: readonly string[]): Promise<KnownState> {
    return new KnownState(await readDigests(journal, topics), topics)
  }

  /** Call when the broker has the subscription: from now on, they come. */
  open(): void {
    this.#timer = setTimeout(() => {
      this.#isOver = true
      this.#states.clear()
    }, patience).unref()
  }

  /** Whether `message` tells a state that is known. One that tells another is known from then on. */
  has({ topic, payload, retain }: Message): boolean {
    if (!retain || this.#isOver) return false
    const known = this.#states.get(topic)
    // Else who publishes state on new topics without end would be remembered without end.
    if (!known && this.#states.size >= this.#most) return false
    const left = known?.left ?? this.#timesOf(topic)
    if (left === 0) return false
    this.#timer?.refresh()
    const now = digest(payload)
    this.#states.set(topic, { digest: now, left: left - 1 })
    return now === known?.digest
  }

  #timesOf(topic: string): number {
    return this.#filters.filter(matches => matches(topic)).length
  }
}
