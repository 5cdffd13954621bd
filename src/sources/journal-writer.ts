import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../base/log.js'
import type { Event } from '../journal/event.js'
import { type Journal, JournalRefusal, sizeOf, type Urgency } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'

/** How much may be on its way to the journal before reading stops, and when it goes on. */
const [mostCount, mostBytes] = [4096, 4 * 1024 ** 2]
/** How long to wait before what the journal refused is tried again, at first and at most; in milliseconds. */
const [firstDelay, longestDelay] = [50, 5000]

/** What a scribe needs. */
export interface JournalWriterOptions {
  readonly journal: Pick<Journal, 'append'>
  readonly log: Logger
  /** What one message counts at most towards what is enough, in bytes: where large ones come one at a time. */
  readonly maxMessageWeight?: number
  /** Called when there is enough on its way to the journal, and when there is room again. */
  readonly onPressure: (isHigh: boolean) => void
  /** Called when nothing is on its way any more. */
  readonly onDrained: () => void
}

/** A message on its way to the journal. There is one for each, so that it has no functions of its own. */
interface Entry {
  readonly message: Message
  readonly size: number
  readonly onWritten: (event: Event) => void
  isRefused: boolean
  /** Set when it is written. */
  event: Event | undefined
}

/** Something to be done when the messages before it are in the journal. */
interface Task {
  readonly run: () => void
}

/**
 * Has messages written to the journal, in the order in which they come, many at a time; and those that it refuses again,
 * until it takes them. Only `close` gives up.
 */
export class JournalWriter {
  readonly #options: JournalWriterOptions
  /** In order; from the first that is not written on. */
  #entries: (Entry | Task)[] = []
  /** Messages among them, and their bytes. */
  #underWay = 0
  #bytes = 0
  #writing = 0
  #pressed = false
  #recovering = false
  #finishing = false
  readonly #closing = new AbortController()

  constructor(options: JournalWriterOptions) {
    this.#options = options
  }

  /** Whether the journal takes nothing just now. */
  get stuck(): boolean {
    return this.#recovering
  }

  /** Whether nothing is on its way to the journal. */
  get drained(): boolean {
    return this.#underWay === 0
  }

  /** @param onWritten called when the message and all before it are written; not after `close` */
  write(message: Message, urgency: Urgency, onWritten: (event: Event) => void): void {
    const size = Math.min(sizeOf(message), this.#options.maxMessageWeight ?? Number.POSITIVE_INFINITY)
    const entry: Entry = { message, size, onWritten, isRefused: true, event: undefined }
    this.#entries.push(entry)
    this.#underWay++
    this.#bytes += entry.size
    // Behind what was refused, so that the order stays.
    if (!this.#recovering) this.#append(entry, urgency)
    this.#weigh()
  }

  /** @param then called when all that came before is written; not after `close` */
  whenWritten(then: () => void): void {
    this.#entries.push({ run: then })
    if (this.#entries.length === 1) this.#finish()
  }

  /** Gives up on what the journal has not taken. */
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

  /** A whole batch of the journal is written at once, and each message of it comes with a microtask of its own. */
  #finishSoon(): void {
    if (this.#finishing) return
    this.#finishing = true
    queueMicrotask(() => {
      this.#finishing = false
      this.#finish()
    })
  }

  /** Tells of what is written, up to the first that is not. */
  #finish(): void {
    let count = 0
    for (const entry of this.#entries) {
      const isDue = 'run' in entry || entry.event !== undefined
      if (!isDue || this.#closing.signal.aborted) break
      count++
    }
    for (const entry of this.#entries.splice(0, count)) {
      if ('run' in entry) entry.run()
      else this.#told(entry)
    }
    this.#weigh()
  }

  #told({ event, size, onWritten }: Entry): void {
    if (!event) return
    this.#underWay--
    this.#bytes -= size
    onWritten(event)
    if (this.#underWay === 0) this.#options.onDrained()
  }

  #refused(error: unknown): void {
    if (this.#recovering || this.#closing.signal.aborted) return
    this.#recovering = true
    this.#weigh()
    this.#recover(error).catch(problem => {
      if (!this.#closing.signal.aborted) this.#options.log.error({ err: problem }, 'what came is not written down')
    })
  }

  async #recover(error: unknown): Promise<void> {
    const { log } = this.#options
    const isBusy = error instanceof JournalRefusal && error.reason === 'busy'
    if (!isBusy) log.warn({ err: error }, 'the journal takes nothing just now; what comes waits')
    const { signal } = this.#closing
    for (let wait = firstDelay; ; wait = Math.min(2 * wait, longestDelay)) {
      await delay(wait, undefined, { signal, ref: false })
      // Only when all that was under way is settled: none of it may come in between. Then one alone, to see if it is taken.
      if (this.#writing > 0) continue
      const [first] = this.#entries
      if (!first || 'run' in first || (await this.#isTaken(first))) break
    }
    this.#recovering = false
    for (const entry of this.#entries) if (!('run' in entry) && entry.isRefused) this.#append(entry, 'now')
    if (!isBusy) log.info('the journal takes messages again')
    this.#weigh()
  }

  async #isTaken(entry: Entry): Promise<boolean> {
    try {
      entry.event = await this.#options.journal.append(entry.message)
      entry.isRefused = false
    } catch {
      return false
    }
    this.#finish()
    return true
  }

  #weigh(): void {
    const factor = this.#pressed ? 0.5 : 1
    const isHigh = this.#recovering || this.#entries.length >= mostCount * factor || this.#bytes >= mostBytes * factor
    if (isHigh === this.#pressed) return
    this.#pressed = isHigh
    this.#options.onPressure(isHigh)
  }
}
