import type { Logger } from '../base/log.js'
import type { Message } from '../mqtt/message.js'
import { TopicTree } from '../topics/topic-tree.js'
import { type JournalBounds, type SequenceRange, sizeOf } from './journal.js'

/** How often the log says that there are too many, at most; in milliseconds. */
const warningInterval = 60_000

/** How long topics are looked at in one go, in milliseconds. */
const portionTime = 2

/** How much one portion of retained messages has at most. */
export interface PortionBounds {
  readonly messages: number
  /** Of topics and payloads; one message may have more. */
  readonly bytes: number
}

/** What is known of a topic's retained message without reading it. */
export interface RetainedEntry {
  readonly sequence: number
  /** Bytes of the topic and the payload. */
  readonly size: number
}

/** Tells whether the event of a topic with this sequence has been evicted. */
export type IsGone = (topic: string, sequence: number) => boolean

/** What becomes of a topic's retained message with a message: `keep` it instead, `remove` what was there, or nothing. */
export type RetainedChange = 'keep' | 'remove' | undefined

/** Which topics have a retained message, within bounds: the topics are in memory, the messages where the journal puts them. */
export class RetainedMessages {
  readonly #bounds: Pick<JournalBounds, 'maxRetained' | 'maxRetainedBytes'>
  readonly #log: Logger
  readonly #entries = new TopicTree<RetainedEntry>()
  #bytes = 0
  #warned = Number.NEGATIVE_INFINITY

  constructor(bounds: Pick<JournalBounds, 'maxRetained' | 'maxRetainedBytes'>, log: Logger) {
    this.#bounds = bounds
    this.#log = log
  }

  /**
   * Notes what `message` does to its topic, and tells it.
   *
   * A message that does not fit takes the one before it away, too: somebody who comes later is better off without a state
   * than with one that has passed.
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

  /** Takes an entry as it is. */
  load(topic: string, entry: RetainedEntry): void {
    this.#bytes += entry.size - (this.#entries.get(topic)?.size ?? 0)
    this.#entries.set(topic, entry)
  }

  /**
   * Looks for the topics that `filters` match and whose message was written in `range`, or after it where `isGone` says
   * that its event is gone. A portion is what a few milliseconds find, which may be nothing; its messages are within
   * `bounds`, but for one that is larger by itself.
   */
  *match(
    filters: readonly string[],
    { after, through }: SequenceRange,
    bounds: PortionBounds,
    isGone: IsGone = () => false,
  ): Generator<readonly string[]> {
    let portion: string[] = []
    let bytes = 0
    let end = performance.now() + portionTime
    for (const topic of this.#entries.match(filters)) {
      const entry = topic === undefined ? undefined : this.#entries.get(topic)
      const sequence = entry?.sequence ?? 0
      if (topic !== undefined && entry && sequence > after && (sequence <= through || isGone(topic, sequence))) {
        portion.push(topic)
        bytes += entry.size
      }
      if (portion.length < bounds.messages && bytes < bounds.bytes && performance.now() < end) continue
      yield portion
      portion = []
      bytes = 0
      end = performance.now() + portionTime
    }
    yield portion
  }

  #warn(): void {
    const now = Date.now()
    if (now - this.#warned < warningInterval) return
    this.#warned = now
    const { maxRetained, maxRetainedBytes } = this.#bounds
    this.#log.warn(
      `the journal has room for the retained messages of ${maxRetained} topics and ${maxRetainedBytes} bytes; what is beyond that is not there for those who come later`,
    )
  }
}
