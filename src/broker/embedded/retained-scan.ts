/** Maximum messages of a batch. */
const batchMessages = 64
/** Maximum bytes of a batch; a larger message is a batch by itself. */
export const batchBytes = 64 * 1024

/** A batch of matching topics. */
export interface RetainedBatch {
  readonly topics: readonly string[]
  /** Bytes of their messages. */
  readonly bytes: number
}

/** Finds the retained messages that match some filters, in batches. */
export class RetainedScan {
  readonly #matches: Iterator<string | undefined>
  readonly #sizeOf: (topic: string) => number | undefined
  /** A topic found that did not fit into the last batch. */
  #next: string | undefined
  #isDone = false

  /**
   * @param matches the topics; `undefined` for each step without one
   * @param sizeOf bytes of a topic's message; `undefined` without one
   */
  constructor(matches: Iterator<string | undefined>, sizeOf: (topic: string) => number | undefined) {
    this.#matches = matches
    this.#sizeOf = sizeOf
  }

  /** Whether the scan is complete. */
  get isDone(): boolean {
    return this.#isDone
  }

  /** Continues until a batch is full or `isOver` returns true, which is called after each step. The batch may be empty. */
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
