import type { Journal } from '../../journal/journal.js'
import type { Message } from '../../mqtt/message.js'
import { topicPredicate } from '../../topics/match.js'
import { type Digests, digest, isDigestOf, readDigests } from '../retained-digests.js'

/** How long nothing that is retained has to come until all has that comes with a subscription; in milliseconds. */
const patience = 5000

/** When all has come in any case: who publishes state all the time could have each message of it looked at for ever. In milliseconds. */
const longest = 60_000

/** Bytes of payloads of new topics that are compared, in all: only where filters overlap, so that a topic comes more than once. */
const mostNewBytes = 64 * 1024 ** 2

/** Topics of which the state is known although the journal does not have it: each may come again for another filter. */
const mostNew = 100_000

/**
 * The retained messages that the journal has, from before a subscription: the broker tells all that it has once more, and
 * what is the same is no event. What is another has been published in between, and is one.
 *
 * A message with RETAIN may as well be live. Each topic is looked at once for each filter that matches it, as brokers send
 * it for each, and only until no more come: so what passes for state although it is news says again what was said before.
 */
export class RetainedDeduplicator {
  readonly #filters: readonly ((topic: string) => boolean)[]
  /** The state of each topic, and how many times it is yet to come. */
  readonly #states = new Map<string, { readonly digest: string | undefined; readonly left: number }>()
  readonly #most: number
  #newBytes = 0
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  private constructor(digests: Digests, topics: readonly string[]) {
    this.#most = digests.size + mostNew
    this.#filters = topics.map(topic => topicPredicate([topic]))
    for (const [topic, known] of digests) this.#states.set(topic, { digest: known, left: this.#timesOf(topic) })
  }

  /** Reads them. */
  static async read(
    journal: Pick<Journal, 'retained' | 'head'>,
    topics: readonly string[],
  ): Promise<RetainedDeduplicator> {
    return new RetainedDeduplicator(await readDigests(journal, topics), topics)
  }

  /** Call when the broker has the subscription: from now on, they come. */
  open(): void {
    this.#timer = setTimeout(() => this.#end(), patience).unref()
    setTimeout(() => this.#end(), longest).unref()
  }

  #end(): void {
    this.#isOver = true
    this.#states.clear()
    clearTimeout(this.#timer)
  }

  /** Whether `message` tells a state that is known. One that tells another is known from then on. */
  has({ topic, payload, retain }: Message): boolean {
    if (!retain || this.#isOver) return false
    this.#timer?.refresh()
    const known = this.#states.get(topic)
    const left = known?.left ?? this.#timesOf(topic)
    if (left === 0 || (!known && !this.#mayRemember(left, payload))) return false
    // A payload that is not compared is not read: it may have megabytes.
    const isKnown = known !== undefined && isDigestOf(known.digest, payload)
    const now = left > 1 && !isKnown ? digest(payload) : known?.digest
    this.#states.set(topic, { digest: now, left: left - 1 })
    return isKnown
  }

  /** Whether the state of a new topic is kept: who publishes on new topics without end would else be remembered without end. */
  #mayRemember(left: number, payload: Buffer): boolean {
    if (left <= 1 || this.#states.size >= this.#most || this.#newBytes + payload.length > mostNewBytes) return false
    this.#newBytes += payload.length
    return true
  }

  #timesOf(topic: string): number {
    return this.#filters.filter(matches => matches(topic)).length
  }
}
