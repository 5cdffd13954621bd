import type { Event, Message } from '../event.js'
import { type JournalBounds, JournalRefusal, sizeOf } from '../journal.js'

/** Bounds of one batch, so that writing it takes milliseconds; one message may have more bytes. */
const batchMessages = 1024
const batchBytes = 4 * 1024 ** 2

interface Waiting {
  readonly message: Message
  readonly size: number
  readonly resolve: (event: Event) => void
  readonly reject: (error: unknown) => void
}

/** What a group commit needs. */
export interface GroupCommitOptions {
  readonly bounds: Pick<JournalBounds, 'maxWaiting' | 'maxWaitingBytes'>
  /** Writes messages down, in order: all of them, or none, and then it rejects. */
  readonly write: (messages: readonly Message[]) => Promise<readonly Event[]>
}

/**
 * Has messages written in batches: what comes in one turn of the event loop, and what comes while the batch before it is
 * written. So the more comes, the less does each cost.
 */
export class GroupCommit {
  readonly #options: GroupCommitOptions
  readonly #listeners = new Set<(events: readonly Event[]) => void>()
  #waiting: Waiting[] = []
  #waitingBytes = 0
  #running: Promise<void> | undefined
  #closed = false

  constructor(options: GroupCommitOptions) {
    this.#options = options
  }

  /** @throws {JournalRefusal} rejects where too much waits, or what `write` rejects with */
  append(message: Message): Promise<Event> {
    if (this.#closed) return Promise.reject(new JournalRefusal('closed'))
    const { maxWaiting, maxWaitingBytes } = this.#options.bounds
    const size = sizeOf(message)
    const count = this.#waiting.length
    if (count > 0 && (count >= maxWaiting || this.#waitingBytes + size > maxWaitingBytes)) {
      return Promise.reject(new JournalRefusal('busy'))
    }
    this.#waitingBytes += size
    return new Promise((resolve, reject) => {
      this.#waiting.push({ message, size, resolve, reject })
      this.#running ??= this.#run()
    })
  }

  watch(listener: (events: readonly Event[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Tells of events that are written. */
  announce(events: readonly Event[]): void {
    for (const listener of this.#listeners) listener(events)
  }

  /** Refuses what comes from now on; resolves when nothing waits any more. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#running
  }

  async #run(): Promise<void> {
    await new Promise(setImmediate)
    while (this.#waiting.length > 0) {
      const batch = this.#take()
      try {
        const events = await this.#options.write(batch.map(({ message }) => message))
        this.announce(events)
        for (const [index, event] of events.entries()) batch[index]?.resolve(event)
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    this.#running = undefined
  }

  #take(): Waiting[] {
    let bytes = 0
    let count = 0
    for (const { size } of this.#waiting) {
      bytes += size
      if (count > 0 && (count === batchMessages || bytes > batchBytes)) break
      count++
    }
    const batch = this.#waiting.splice(0, count)
    for (const { size } of batch) this.#waitingBytes -= size
    return batch
  }
}
