import type { Logger } from '../base/log.js'
import { LogRate } from '../base/log-rate.js'
import type { Message } from '../mqtt/message.js'
import { TopicTree } from '../topics/topic-tree.js'
import { type JournalBounds, type SequenceRange, sizeOf } from './journal.js'

/** Time of one scan step, in milliseconds. */
const sliceTime = 2

export interface BatchBounds {
  readonly messages: number
  /** Bytes of topics, payloads and properties; a single message may have more. */
  readonly bytes: number
}

/** A topic's retained message, without the payload. */
export interface RetainedEntry {
  readonly sequence: number
  readonly size: number
  /** As in `Message`. */
  readonly expires?: number | undefined
}

/** Whether a topic's event with this sequence is evicted. */
export type IsEvicted = (topic: string, sequence: number) => boolean

/** Effect of a message on its topic's retained message: `keep` replaces it, `remove` removes it. */
export type RetainedChange = 'keep' | 'remove' | undefined

/** Topics with a retained message, within bounds; the journal stores the messages. */
export class RetainedMessages {
  readonly #bounds: Pick<JournalBounds, 'maxRetained' | 'maxRetainedBytes'>
  readonly #log: Logger
  readonly #entries = new TopicTree<RetainedEntry>()
  /** By topic, of the messages that expire. */
  readonly #expiries = new Map<string, number>()
  /** No message expires before. */
  #nextExpiry = Number.POSITIVE_INFINITY
  #bytes = 0
  readonly #warnings = new LogRate()

  constructor(bounds: Pick<JournalBounds, 'maxRetained' | 'maxRetainedBytes'>, log: Logger) {
    this.#bounds = bounds
    this.#log = log
  }

  /**
   * Applies `message` to its topic's retained message. One that does not fit removes the earlier one: no retained message is better than an
   * outdated one.
   */
  note(message: Message, sequence: number): RetainedChange {
    if (!message.retain) return undefined
    const { topic, payload, expires } = message
    const size = sizeOf(message)
    const before = this.#entries.get(topic)
    const fits =
      (before !== undefined || this.#entries.size < this.#bounds.maxRetained) &&
      this.#bytes - (before?.size ?? 0) + size <= this.#bounds.maxRetainedBytes
    if (payload.length > 0 && fits) {
      this.load(topic, expires === undefined ? { sequence, size } : { sequence, size, expires })
      return 'keep'
    }
    if (payload.length > 0) this.#warn()
    return this.#remove(topic) ? 'remove' : undefined
  }

  #remove(topic: string): boolean {
    const entry = this.#entries.get(topic)
    if (entry === undefined) return false
    this.#entries.delete(topic)
    this.#expiries.delete(topic)
    this.#bytes -= entry.size
    return true
  }

  /** Removes up to `count` messages that have expired at the time `now`; returns their topics. */
  removeExpired(now: number, count: number): readonly string[] {
    if (now < this.#nextExpiry) return []
    const expired: string[] = []
    let next = Number.POSITIVE_INFINITY
    for (const [topic, expires] of this.#expiries) {
      if (expires > now || expired.length === count) next = Math.min(next, expires)
      else expired.push(topic)
    }
    this.#nextExpiry = next
    for (const topic of expired) this.#remove(topic)
    return expired
  }

  load(topic: string, entry: RetainedEntry): void {
    this.#bytes += entry.size - (this.#entries.get(topic)?.size ?? 0)
    this.#entries.set(topic, entry)
    const { expires } = entry
    if (expires === undefined) {
      if (this.#expiries.size > 0) this.#expiries.delete(topic)
      return
    }
    this.#expiries.set(topic, expires)
    this.#nextExpiry = Math.min(this.#nextExpiry, expires)
  }

  /**
   * Finds the topics that match `filters` and whose message was appended in `range`, or after it where its event is evicted. A batch takes a few
   * milliseconds, and may be empty; it is within `bounds`, except for a single larger message.
   */
  *match(
    filters: readonly string[],
    { after, through }: SequenceRange,
    bounds: BatchBounds,
    isEvicted: IsEvicted = () => false,
  ): Generator<readonly string[]> {
    let batch: string[] = []
    let bytes = 0
    let end = performance.now() + sliceTime
    for (const topic of this.#entries.match(filters)) {
      const entry = topic === undefined ? undefined : this.#entries.get(topic)
      const sequence = entry?.sequence ?? 0
      if (topic !== undefined && entry && sequence > after && (sequence <= through || isEvicted(topic, sequence))) {
        batch.push(topic)
        bytes += entry.size
      }
      if (batch.length < bounds.messages && bytes < bounds.bytes && performance.now() < end) continue
      yield batch
      batch = []
      bytes = 0
      end = performance.now() + sliceTime
    }
    yield batch
  }

  #warn(): void {
    if (!this.#warnings.allows()) return
    const { maxRetained, maxRetainedBytes } = this.#bounds
    this.#log.warn(
      `the journal stores retained messages of at most ${maxRetained} topics and ${maxRetainedBytes} bytes: new subscribers do not get further ones`,
    )
  }
}
