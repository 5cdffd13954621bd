import type { Logger } from '../log.js'
import type { Event } from '../push/event.js'
import type { Hub, Subscription } from '../push/hub.js'
import type { Clock } from '../push/receipts/clock.js'
import type { CloseReason, Sink } from '../push/sink.js'
import { type Occurrence, occurrenceOf } from './occurrence.js'

/** What a listener needs. */
export interface ListenerOptions {
  readonly hub: Hub
  readonly filters: readonly string[]
  /** Where to begin. */
  readonly cursor: string
  /** Takes what has come, in order, and the place after it. Where it rejects, it is called again with the same. */
  readonly take: (occurrences: readonly Occurrence[], cursor: string | undefined) => Promise<void>
  readonly clock: Clock
  readonly log: Logger
}

/** How long to wait until the hub, or whoever takes, is asked again; in milliseconds. */
const retryDelay = 1000

/**
 * Listens through the hub, one portion at a time: the hub keeps what comes while one is being taken, and what it cannot
 * keep is read from the journal afterwards.
 */
export class Listener implements Sink {
  readonly #options: ListenerOptions
  #subscription: Subscription | undefined
  #taking: Promise<void> = Promise.resolve()
  #resume: (() => void) | undefined
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor(options: ListenerOptions) {
    this.#options = options
    this.#subscribe(options.cursor)
  }

  /** The place up to which everything has been taken; `undefined` while something is. */
  get cursor(): string | undefined {
    return this.#resume ? undefined : this.#subscription?.cursor
  }

  #subscribe(cursor: string | undefined): void {
    const { hub, filters } = this.#options
    this.#subscription = hub.subscribe({ filters, encode, sink: this, ...(cursor === undefined ? {} : { cursor }) })
  }

  write(data: Buffer): boolean {
    const occurrences = decode(data)
    const cursor = this.#subscription?.cursor
    this.#taking = this.#take(occurrences, cursor).then(() => {
      const resume = this.#resume
      this.#resume = undefined
      if (!this.#closed) resume?.()
    })
    return false
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  gap({ reason }: { readonly reason: string }): void {
    this.#options.log.warn({ reason }, 'no mail is sent of messages that came while mqway was away and are lost')
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    if (this.#closed || reason === 'shutting-down') return
    // What is being taken belongs before what comes next.
    this.#taking.then(() => {
      if (this.#closed) return
      this.#resume = undefined
      this.#stopTimer = this.#options.clock.after(retryDelay, () => this.#subscribe(cursor))
    })
  }

  async #take(occurrences: readonly Occurrence[], cursor: string | undefined): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#options.take(occurrences, cursor)
        return
      } catch (error) {
        this.#options.log.error({ err: error }, 'what mails are to be sent of could not be written down')
        await new Promise<void>(resolve => {
          this.#stopTimer = this.#options.clock.after(retryDelay, resolve)
        })
      }
    }
  }

  /** Ends it; what is being taken is finished first. */
  async end(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#stopTimer?.()
    this.#subscription?.close()
    await this.#taking
  }
}

/** What is retained is no news, and an empty message says that something is over. */
function encode(event: Event): Buffer {
  if (event.retained || event.payload.length === 0) return Buffer.alloc(0)
  return Buffer.from(`${JSON.stringify(occurrenceOf(event))}\n`)
}

function decode(data: Buffer): Occurrence[] {
  if (data.length === 0) return []
  return data
    .toString()
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line))
}
