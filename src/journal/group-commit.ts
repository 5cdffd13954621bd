import type { SliceMonitor } from '../base/slice-monitor.js'
import type { Message } from '../mqtt/message.js'
import { everyTopic, type TopicPredicate } from '../topics/match.js'
import type { Event } from './event.js'
import { type JournalBounds, JournalRefusal, sizeOf, type Urgency } from './journal.js'

/** Bounds of one batch, so that writing it takes milliseconds; one message may have more bytes. */
const batchMessages = 1024
const batchBytes = 4 * 1024 ** 2

/**
 * For how long messages that nobody waits for are collected, in milliseconds. A batch of one message costs 25 to 50 µs, and
 * one of a hundred 2 µs for each.
 */
const leisure = 10
/** How many messages, and bytes of them, wait for that at most: half a millisecond's work. */
const [leisureMessages, leisureBytes] = [256, 1024 ** 2]

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
  /** Told of each batch. */
  readonly slices?: SliceMonitor | undefined
}

/**
 * Has messages written in batches: what comes in one turn of the event loop, and what comes while the batch before it is
 * written. So the more comes, the less does each cost. What nobody waits for is collected a little longer.
 */
export class GroupCommit {
  readonly #options: GroupCommitOptions
  readonly #listeners = new Map<(events: readonly Event[]) => void, TopicPredicate>()
  #waiting: Waiting[] = []
  #waitingBytes = 0
  /** Whether what waits is to be written without delay. */
  #due = false
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #closed = false

  constructor(options: GroupCommitOptions) {
    this.#options = options
  }

  /** @throws {JournalRefusal} rejects where too much waits, or what `write` rejects with */
  append(message: Message, urgency: Urgency = 'now'): Promise<Event> {
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
      if (this.#due) return
      if (urgency === 'now' || this.#isMuch() || this.#isWanted(message.topic)) this.#writeSoon()
      else this.#timer ??= setTimeout(() => this.#onTime(), leisure)
    })
  }

  /** @param wants the topics that it is to be told of without delay */
  watch(listener: (events: readonly Event[]) => void, wants: TopicPredicate = everyTopic): () => void {
    this.#listeners.set(listener, wants)
    return () => this.#listeners.delete(listener)
  }

  /** Tells of events that are written. */
  announce(events: readonly Event[]): void {
    for (const listener of this.#listeners.keys()) listener(events)
  }

  /** Refuses what comes from now on; resolves when nothing waits any more. */
  async close(): Promise<void> {
    this.#closed = true
    if (this.#waiting.length > 0) this.#writeSoon()
    await this.#running
    clearTimeout(this.#timer)
  }

  #isMuch(): boolean {
    const { maxWaiting, maxWaitingBytes } = this.#options.bounds
    const count = Math.min(leisureMessages, maxWaiting)
    return this.#waiting.length >= count || this.#waitingBytes >= Math.min(leisureBytes, maxWaitingBytes / 2)
  }

  #isWanted(topic: string): boolean {
    for (const wants of this.#listeners.values()) if (wants(topic)) return true
    return false
  }

  #onTime(): void {
    this.#timer = undefined
    if (this.#waiting.length > 0) this.#writeSoon()
  }

  #writeSoon(): void {
    this.#due = true
    this.#running ??= this.#run()
  }

  async #run(): Promise<void> {
    await new Promise(setImmediate)
    while (this.#due) {
      this.#options.slices?.begin('journal')
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
    this.#due = this.#waiting.length > 0
    return batch
  }
}
