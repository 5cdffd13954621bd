/** Messages of one batch at most. */
const batchMessages = 64
/** Bytes of one batch at most; a larger message is a batch by itself. */
export const batchBytes = 64 * 1024

/** A few of the topics that a scan finds. */
export interface RetainedBatch {
  readonly topics: readonly string[]
  /** Bytes of their messages. */
  readonly bytes: number
}

/** Looks for the retained messages that some filters match, a batch at a time. */
export class RetainedScan {
  readonly #matches: Iterator<string | undefined>
  readonly #sizeOf: (topic: string) => number | undefined
  /** Found, and too large for the batch before. */
  #next: string | undefined
  #isDone = false

  /**
   * @param matches the topics, and `undefined` for each step that finds none
   * @param sizeOf bytes of a topic's message; `undefined` where it has none (any more)
   */
  constructor(matches: Iterator<string | undefined>, sizeOf: (topic: string) => number | undefined) {
    this.#matches = matches
    this.#sizeOf = sizeOf
  }

  /** Whether there is nothing more to be found. */
  get isDone(): boolean {
    return this.#isDone
  }

  /** Looks on until a batch is full or `isOver` returns true, which is asked after each step; the batch may be empty. */
  next(isOver: () => boolean): RetainedBatch {
    const topics: string[] = []
    let bytes = 0
    while (!this.#isDone && topics.length < batchMessages) {
      const topic = this.#next ?? this.#step()
      this.#next = undefined
      const size = topic === undefined ? undefined : this.#sizeOf(topic)
      if (topic !== undefined && size !== undefined) {
        if (topics.length > 0 && bytes + size > batchBytes) {
          this.#next = topic
          break
        }
        topics.push(topic)
        bytes += size
      }
      if (isOver()) break
    }
    return { topics, bytes }
  }

  #step(): string | undefined {
    const { value, done } = this.#matches.next()
    if (done === true) this.#isDone = true
    return done === true ? undefined : value
  }
}
