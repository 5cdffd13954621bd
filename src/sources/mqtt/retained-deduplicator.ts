import type { Message } from '../../mqtt/message.js'
import { topicPredicate } from '../../topics/match.js'
import { type Digests, digest, isDigestOf } from '../retained-digests.js'

/** Deduplication ends after this time without a retained message, in milliseconds. */
const idleTimeout = 5000

/** Deduplication ends after this time in any case, in milliseconds: a client may publish retained messages all the time. */
const totalTimeout = 60_000

/** Bytes of payloads on new topics that are compared: only with overlapping filters, for which a topic arrives more than once. */
const maxNewBytes = 64 * 1024 ** 2

/** Maximum number of stored new topics, which may arrive again for another filter. */
const maxNewTopics = 100_000

/**
 * Recognizes retained messages that the journal has: after a subscription, the broker sends all of them again. An equal message is no new
 * event; a different one was published in between, and is one.
 *
 * A message with RETAIN may be live as well. Each topic is compared once for each matching filter, because brokers send it once for each, and
 * only until no more arrive: a live message mistaken for a retained one is a repetition of the previous one.
 */
export class RetainedDeduplicator {
  readonly #filters: readonly ((topic: string) => boolean)[]
  /** The retained message of each topic, and the number of expected repetitions. */
  readonly #topics = new Map<string, { readonly digest: string | undefined; readonly remaining: number }>()
  readonly #maxTopics: number
  #newBytes = 0
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  /** @param digests of the journal's retained messages */
  constructor(digests: Digests, topics: readonly string[]) {
    this.#maxTopics = digests.size + maxNewTopics
    this.#filters = topics.map(topic => topicPredicate([topic]))
    for (const [topic, known] of digests) this.#topics.set(topic, { digest: known, remaining: this.#timesOf(topic) })
  }

  /** Call when the broker has the subscription. */
  open(): void {
    this.#timer = setTimeout(() => this.#end(), idleTimeout).unref()
    setTimeout(() => this.#end(), totalTimeout).unref()
  }

  #end(): void {
    this.#isOver = true
    this.#topics.clear()
    clearTimeout(this.#timer)
  }

  /** Whether the journal has `message` as its topic's retained message. Remembers a different one. */
  has({ topic, payload, retain }: Message): boolean {
    if (!retain || this.#isOver) return false
    this.#timer?.refresh()
    const known = this.#topics.get(topic)
    const remaining = known?.remaining ?? this.#timesOf(topic)
    if (remaining === 0 || (!known && !this.#mayRemember(remaining, payload))) return false
    // Large payloads are hashed only if they are compared.
    const isKnown = known !== undefined && isDigestOf(known.digest, payload)
    const current = remaining > 1 && !isKnown ? digest(payload) : known?.digest
    this.#topics.set(topic, { digest: current, remaining: remaining - 1 })
    return isKnown
  }

  /** Bounds the new topics that are remembered. */
  #mayRemember(remaining: number, payload: Buffer): boolean {
    if (remaining <= 1 || this.#topics.size >= this.#maxTopics) return false
    if (this.#newBytes + payload.length > maxNewBytes) return false
    this.#newBytes += payload.length
    return true
  }

  #timesOf(topic: string): number {
    return this.#filters.filter(matches => matches(topic)).length
  }
}
