import type { SliceMonitor } from '../base/slice-monitor.js'
import type { Message } from '../mqtt/message.js'
import { everyTopic, type TopicPredicate } from '../topics/match.js'
import type { Event } from './event.js'
import { type JournalBounds, JournalRefusal, sizeOf, type Urgency } from './journal.js'

/** Bounds of one batch, which takes milliseconds to write; a single message may be larger. */
const batchMessages = 1024
const batchBytes = 4 * 1024 ** 2

/**
 * How long messages that nobody waits for are collected, in milliseconds: a larger batch costs less for each message.
 */
const leisure = 10
/** Messages, and bytes, that are collected at most: half a millisecond's work. */
const [leisureMessages, leisureBytes] = [256, 1024 ** 2]

interface Waiting {
  readonly message: Message
  readonly size: number
  readonly resolve: (event: Event) => void
  readonly reject: (error: unknown) => void
}

export interface GroupCommitOptions {
  readonly bounds: Pick<JournalBounds, 'maxWaiting' | 'maxWaitingBytes'>
  /** Writes all messages, in order, or rejects and writes none. */
  readonly write: (messages: readonly Message[]) => Promise<readonly Event[]>
  readonly slices?: SliceMonitor | undefined
}

/**
 * Writes messages in batches: those of one event-loop tick, and those that arrive while the previous batch is written. Messages that nobody
 * waits for are collected a little longer.
 */
export class GroupCommit {
  readonly #options: GroupCommitOptions
  readonly #listeners = new Map<(events: readonly Event[]) => void, TopicPredicate>()
  #waiting: Waiting[] = []
  #waitingBytes = 0
  /** Whether the waiting messages are to be written without delay. */
  #due = false
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #closed = false

  constructor(options: GroupCommitOptions) {
    this.#options = options
  }

  /** @throws {JournalRefusal} rejects where too much waits, and with the error of `write` */
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
      if (urgency === 'now' || this.#isBatchFull() || this.#isWanted(message.topic)) this.#writeSoon()
      else this.#timer ??= setTimeout(() => this.#onTime(), leisure)
    })
  }

  /** @param wants the topics that are written without delay */
  watch(listener: (events: readonly Event[]) => void, wants: TopicPredicate = everyTopic): () => void {
    this.#listeners.set(listener, wants)
    return () => this.#listeners.delete(listener)
  }

  /** Notifies the listeners of written events. */
  announce(events: readonly Event[]): void {
    for (const listener of this.#listeners.keys()) listener(events)
  }

  /** Refuses further messages; resolves when no message waits. */
  async close(): Promise<void> {
    this.#closed = true
    if (this.#waiting.length > 0) this.#writeSoon()
    await this.#running
    clearTimeout(this.#timer)
  }

  #isBatchFull(): boolean {
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
