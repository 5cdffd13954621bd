import { FairQuota } from '../../base/fair-quota.js'
import { TopicTree } from '../../topics/topic-tree.js'

/** Bounds of retained messages. */
export interface RetainedBounds {
  /** Topics that may have one. */
  readonly maxRetainedMessages: number
  /** Bytes of their topics and payloads. */
  readonly maxRetainedBytes: number
}

/** One topic's retained message. */
export interface RetainedEntry {
  /** Bytes of its topic and payload, rounded up to a whole `block`. */
  readonly size: number
  /** The quota key that it counts for. */
  readonly publisher: string
}

/** Sizes are rounded up to this, so that a message that replaces another and is a few bytes longer as a rule needs no more room. */
const block = 64

/** The quota key of messages that were loaded: who published them is not stored. */
const unknownPublisher = ''

/** Bytes that a message counts. */
export function retainedSize({ topic, payload }: { topic: string; payload: string | Buffer }): number {
  return block * Math.ceil((Buffer.byteLength(topic) + Buffer.byteLength(payload)) / block)
}

/** Topics with a retained message, by topic, within bounds that publishers share: each has half at most, in number and bytes. */
export class RetainedQuota {
  readonly entries = new TopicTree<RetainedEntry>()
  readonly #messages: FairQuota
  readonly #bytes: FairQuota

  constructor({ maxRetainedMessages, maxRetainedBytes }: RetainedBounds) {
    this.#messages = new FairQuota(maxRetainedMessages)
    this.#bytes = new FairQuota(maxRetainedBytes)
  }

  /** Bytes of all. */
  get bytes(): number {
    return this.#bytes.total
  }

  /**
   * Counts a message of `size` bytes for `publisher`, instead of the topic's earlier one. One that is no larger than the earlier one always
   * fits: where its publisher has no room, it counts for the publisher of the earlier one.
   *
   * @returns whether it fits; if not, the topic has no message
   */
  replace(topic: string, size: number, publisher: string): boolean {
    const before = this.entries.get(topic)
    this.remove(topic)
    const fits =
      this.#messages.exceededBy(publisher, 1) === undefined && this.#bytes.exceededBy(publisher, size) === undefined
    if (fits) this.#add(topic, { size, publisher })
    else if (before && size <= before.size) this.#add(topic, { size, publisher: before.publisher })
    return fits || (before !== undefined && size <= before.size)
  }

  /** Counts a message that was stored earlier; returns whether it fits in all. */
  load(topic: string, size: number): boolean {
    if (this.#messages.total >= this.#messages.max || this.#bytes.total + size > this.#bytes.max) return false
    this.#add(topic, { size, publisher: unknownPublisher })
    return true
  }

  /** Forgets a topic's message; returns whether there was one. */
  remove(topic: string): boolean {
    const entry = this.entries.get(topic)
    if (!entry) return false
    this.entries.delete(topic)
    this.#messages.giveBack(entry.publisher, 1)
    this.#bytes.giveBack(entry.publisher, entry.size)
    return true
  }

  #add(topic: string, entry: RetainedEntry): void {
    this.entries.set(topic, entry)
    this.#messages.take(entry.publisher, 1)
    this.#bytes.take(entry.publisher, entry.size)
  }
}
