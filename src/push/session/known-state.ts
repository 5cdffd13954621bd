import { createHash } from 'node:crypto'
import type { Message } from '../event.js'
import type { Journal } from '../journal.js'
import { topicPredicate } from '../topics.js'

/** How long after the last one a retained message may still be one of those that come with a subscription; in milliseconds. */
const patience = 5000

/** Digests of payloads, by topic. */
export type Digests = Map<string, string>

/** The retained messages that the journal has. A digest of each is kept, and so there are as many as it has topics with state. */
export async function readDigests(
  journal: Pick<Journal, 'retained' | 'head'>,
  topics: readonly string[],
): Promise<Digests> {
  const digests: Digests = new Map()
  for await (const events of journal.retained(topics, { after: 0, through: journal.head })) {
    for (const { topic, payload } of events) digests.set(topic, digest(payload))
  }
  return digests
}

/** What is the same for the same payloads, and for no others. */
export function digest(payload: Buffer): string {
  return createHash('sha256').update(payload).digest('base64')
}

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
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  private constructor(digests: Digests, topics: readonly string[]) {
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
