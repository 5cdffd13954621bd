import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../base/log.js'
import type { Event } from '../journal/event.js'
import { type Journal, JournalRefusal, sizeOf, type Urgency } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'

/** Queued messages, and bytes, above which `onPressure(true)` is called; it ends at half of them. */
const [maxCount, maxBytes] = [4096, 4 * 1024 ** 2]
/** Delay before a refused message is retried, at first and at most, in milliseconds. */
const [firstDelay, maxDelay] = [50, 5000]

export interface JournalWriterOptions {
  readonly journal: Pick<Journal, 'append'>
  readonly log: Logger
  /** Maximum bytes that one message counts towards the queue's bound, if large ones are written one at a time. */
  readonly maxMessageWeight?: number
  /** Called when the queue is full, and when it has room again. */
  readonly onPressure: (isHigh: boolean) => void
  readonly onDrained: () => void
}

/** A queued message: one object without closures. */
interface Entry {
  readonly message: Message
  readonly size: number
  readonly onWritten: (event: Event) => void
  isRefused: boolean
  /** Set when it is written. */
  event: Event | undefined
}

/** A callback after the messages before it. */
interface Task {
  readonly run: () => void
}

/**
 * Appends messages to the journal in order, many at a time, and retries refused ones until `close`.
 */
export class JournalWriter {
  readonly #options: JournalWriterOptions
  /** In order, from the first unwritten one on. */
  #entries: (Entry | Task)[] = []
  /** Messages among the entries, and their bytes. */
  #unwritten = 0
  #bytes = 0
  #writing = 0
  #isFull = false
  #recovering = false
  #finishing = false
  readonly #closing = new AbortController()

  constructor(options: JournalWriterOptions) {
    this.#options = options
  }

  /** Whether the journal refuses messages at present. */
  get stuck(): boolean {
    return this.#recovering
  }

  get drained(): boolean {
    return this.#unwritten === 0
  }

  /** @param onWritten called when this and all earlier messages are written; not after `close` */
  write(message: Message, urgency: Urgency, onWritten: (event: Event) => void): void {
    const size = Math.min(sizeOf(message), this.#options.maxMessageWeight ?? Number.POSITIVE_INFINITY)
    const entry: Entry = { message, size, onWritten, isRefused: true, event: undefined }
    this.#entries.push(entry)
    this.#unwritten++
    this.#bytes += entry.size
    // Behind the refused messages, to keep the order.
    if (!this.#recovering) this.#append(entry, urgency)
    this.#updatePressure()
  }

  /** @param then called when all earlier messages are written; not after `close` */
  whenWritten(then: () => void): void {
    this.#entries.push({ run: then })
    if (this.#entries.length === 1) this.#finish()
  }

  close(): void {
    this.#closing.abort()
  }

  #append(entry: Entry, urgency: Urgency): void {
    entry.isRefused = false
    this.#writing++
    this.#options.journal.append(entry.message, urgency).then(
      event => {
        this.#writing--
        entry.event = event
        this.#finishSoon()
      },
      error => {
        this.#writing--
        entry.isRefused = true
        this.#refused(error)
      },
    )
  }

  /** Completes entries once for each batch, whose messages settle in separate microtasks. */
  #finishSoon(): void {
    if (this.#finishing) return
    this.#finishing = true
    queueMicrotask(() => {
      this.#finishing = false
      this.#finish()
    })
  }

  /** Completes the written entries, up to the first unwritten one. */
  #finish(): void {
    let count = 0
    for (const entry of this.#entries) {
      const isDue = 'run' in entry || entry.event !== undefined
      if (!isDue || this.#closing.signal.aborted) break
      count++
    }
    for (const entry of this.#entries.splice(0, count)) {
      if ('run' in entry) entry.run()
      else this.#complete(entry)
    }
    this.#updatePressure()
  }

  #complete({ event, size, onWritten }: Entry): void {
    if (!event) return
    this.#unwritten--
    this.#bytes -= size
    onWritten(event)
    if (this.#unwritten === 0) this.#options.onDrained()
  }

  #refused(error: unknown): void {
    if (this.#recovering || this.#closing.signal.aborted) return
    this.#recovering = true
    this.#updatePressure()
    this.#recover(error).catch(problem => {
      if (!this.#closing.signal.aborted)
        this.#options.log.error({ err: problem }, 'failed to append messages to the journal')
    })
  }

  async #recover(error: unknown): Promise<void> {
    const { log } = this.#options
    const isBusy = error instanceof JournalRefusal && error.reason === 'busy'
    if (!isBusy) log.warn({ err: error }, 'the journal refuses messages, which wait until it accepts them')
    const { signal } = this.#closing
    for (let wait = firstDelay; ; wait = Math.min(2 * wait, maxDelay)) {
      await delay(wait, undefined, { signal, ref: false })
      // After all pending appends have settled, so that none overtakes; then the first message alone, as a trial.
      if (this.#writing > 0) continue
      const [first] = this.#entries
      if (!first || 'run' in first || (await this.#isAccepted(first))) break
    }
    this.#recovering = false
    for (const entry of this.#entries) if (!('run' in entry) && entry.isRefused) this.#append(entry, 'now')
    if (!isBusy) log.info('the journal accepts messages again')
    this.#updatePressure()
  }

  async #isAccepted(entry: Entry): Promise<boolean> {
    try {
      entry.event = await this.#options.journal.append(entry.message)
      entry.isRefused = false
    } catch {
      return false
    }
    this.#finish()
    return true
  }

  #updatePressure(): void {
    const factor = this.#isFull ? 0.5 : 1
    const isHigh = this.#recovering || this.#entries.length >= maxCount * factor || this.#bytes >= maxBytes * factor
    if (isHigh === this.#isFull) return
    this.#isFull = isHigh
    this.#options.onPressure(isHigh)
  }
}
