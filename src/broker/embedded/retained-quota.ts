import type { PublishPacket } from 'aedes'
import { FairQuota } from '../../base/fair-quota.js'
import { TopicTree } from '../../topics/topic-tree.js'
import { propertyBytes } from './packet.js'

/** Bounds of retained messages. */
export interface RetainedBounds {
  /** Maximum number. */
  readonly maxRetainedMessages: number
  /** Maximum bytes of topics, payloads and properties. */
  readonly maxRetainedBytes: number
}

/** One topic's retained message. */
export interface RetainedEntry {
  /** Bytes of its topic, payload and properties, rounded up to a whole `block`. */
  readonly size: number
  /** Quota key of its publisher. */
  readonly publisher: string
}

/** Sizes are rounded up to blocks, so that a replacement that is a few bytes longer mostly needs no more room. */
const block = 64

/** Quota key of loaded messages, whose publisher is not stored. */
const unknownPublisher = ''

/** Counted bytes of a message. */
export function retainedSize(packet: Pick<PublishPacket, 'topic' | 'payload' | 'properties'>): number {
  const bytes = Buffer.byteLength(packet.topic) + Buffer.byteLength(packet.payload) + propertyBytes(packet)
  return block * Math.ceil(bytes / block)
}

/** Topics with a retained message, within bounds shared by publishers: each has at most half of the number and bytes. */
export class RetainedQuota {
  readonly entries = new TopicTree<RetainedEntry>()
  readonly #messages: FairQuota
  readonly #bytes: FairQuota

  constructor({ maxRetainedMessages, maxRetainedBytes }: RetainedBounds) {
    this.#messages = new FairQuota(maxRetainedMessages)
    this.#bytes = new FairQuota(maxRetainedBytes)
  }

  /** Counted bytes of all messages. */
  get bytes(): number {
    return this.#bytes.total
  }

  /**
   * Counts a message of `size` bytes for `publisher`, in place of the topic's earlier one. A message no larger than the earlier one always
   * fits: where its publisher has no room, it counts for the earlier publisher.
   *
   * @returns whether it fits; otherwise the topic has no message
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

  /** Counts a loaded message; returns whether it fits. */
  load(topic: string, size: number): boolean {
    if (this.#messages.total >= this.#messages.max || this.#bytes.total + size > this.#bytes.max) return false
    this.#add(topic, { size, publisher: unknownPublisher })
    return true
  }

  /** Removes a topic's message; returns whether there was one. */
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
