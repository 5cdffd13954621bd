import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import type { CloseReason, Encoder, EventSink } from '../../hub/event-sink.js'
import type { Hub, Subscription } from '../../hub/hub.js'
import type { Event } from '../../journal/event.js'

/** What a listener needs. `T` is what is wanted of events; it is the same after a way through JSON. */
export interface ListenerOptions<T> {
  readonly hub: Hub
  readonly filters: readonly string[]
  /** Where to begin. */
  readonly cursor: string
  /** What is wanted of an event. */
  readonly read: (event: Event) => readonly T[]
  /**
   * Takes what has come, in order, and the place after it. Where it rejects, having said why, it is called again with the
   * same.
   */
  readonly take: (found: readonly T[], cursor: string | undefined) => Promise<void>
  readonly clock: Clock
  readonly log: Logger
}

/** How long to wait until the hub, or whoever takes, is asked again; in milliseconds. */
const retryDelay = 1000

/**
 * Listens through the hub, one portion at a time: the hub keeps what comes while one is being taken, and what it cannot
 * keep is read from the journal afterwards.
 */
export class Listener<T> implements EventSink {
  readonly #options: ListenerOptions<T>
  readonly #encode: Encoder
  #subscription: Subscription | undefined
  #taking: Promise<void> = Promise.resolve()
  #resume: (() => void) | undefined
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor(options: ListenerOptions<T>) {
    this.#options = options
    this.#encode = encoder(options)
    this.#subscribe(options.cursor)
  }

  /** The place up to which everything has been taken; `undefined` while something is. */
  get cursor(): string | undefined {
    return this.#resume ? undefined : this.#subscription?.cursor
  }

  #subscribe(cursor: string | undefined): void {
    const { hub, filters } = this.#options
    this.#subscription = hub.subscribe({
      filters,
      encode: this.#encode,
      sink: this,
      ...(cursor === undefined ? {} : { cursor }),
    })
  }

  write(data: Buffer): boolean {
    // Nothing is written down for what nobody wants; after a crash, it is looked through once more.
    if (data.length === 0) return true
    const cursor = this.#subscription?.cursor
    this.#taking = this.#take(decode(data), cursor).then(() => {
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

  async #take(found: readonly T[], cursor: string | undefined): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#options.take(found, cursor)
        return
      } catch {
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

const nothing = Buffer.alloc(0)

/** What is retained is no news, and an empty message says that something is over. */
function encoder<T>({ read, log }: Pick<ListenerOptions<T>, 'read' | 'log'>): Encoder {
  return event => {
    if (event.retained || event.payload.length === 0) return nothing
    try {
      return Buffer.from(
        read(event)
          .map(one => `${JSON.stringify(one)}\n`)
          .join(''),
      )
    } catch (error) {
      // Everybody who gets events would wait for it.
      log.error({ err: error, topic: event.topic }, 'no mail is sent of a message')
      return nothing
    }
  }
}

function decode<T>(lines: Buffer): T[] {
  return lines
    .toString()
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line))
}
