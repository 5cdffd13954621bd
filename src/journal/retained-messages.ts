import type { Logger } from '../base/log.js'
import { LogRate } from '../base/log-rate.js'
import type { Message } from '../mqtt/message.js'
import { TopicTree } from '../topics/topic-tree.js'
import { type JournalBounds, type SequenceRange, sizeOf } from './journal.js'

/** Time of one scan step, in milliseconds. */
const sliceTime = 2

export interface BatchBounds {
  readonly messages: number
  /** Bytes of topics and payloads; a single message may have more. */
  readonly bytes: number
}

/** A topic's retained message, without the payload. */
export interface RetainedEntry {
  readonly sequence: number
  readonly size: number
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
    const { topic, payload } = message
    const size = sizeOf(message)
    const before = this.#entries.get(topic)
    const fits =
      (before !== undefined || this.#entries.size < this.#bounds.maxRetained) &&
      this.#bytes - (before?.size ?? 0) + size <= this.#bounds.maxRetainedBytes
    if (payload.length > 0 && fits) {
      this.load(topic, { sequence, size })
      return 'keep'
    }
    if (payload.length > 0) this.#warn()
    if (before === undefined) return undefined
    this.#entries.delete(topic)
    this.#bytes -= before.size
    return 'remove'
  }

  load(topic: string, entry: RetainedEntry): void {
    this.#bytes += entry.size - (this.#entries.get(topic)?.size ?? 0)
    this.#entries.set(topic, entry)
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
