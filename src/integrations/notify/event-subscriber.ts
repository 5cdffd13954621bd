import type { Clock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import type { CloseReason, Encoder, EventSink } from '../../hub/event-sink.js'
import type { Hub, Subscription } from '../../hub/hub.js'
import type { Event } from '../../journal/event.js'

/** `T` is the extract of an event; it must survive JSON. */
export interface EventSubscriberOptions<T> {
  readonly hub: Hub
  readonly filters: readonly string[]
  /** The position to start from. */
  readonly cursor: string
  /** Extracts the wanted parts of an event. */
  readonly read: (event: Event) => readonly T[]
  /** Takes the extracts, in order, and the position after them. It logs its errors; after one, it is called again with the same. */
  readonly take: (found: readonly T[], cursor: string | undefined) => Promise<void>
  readonly clock: Clock
  readonly log: Logger
}

/** Delay before the next attempt to subscribe, or to call `take`, in milliseconds. */
const retryDelay = 1000

/**
 * Subscribes to the hub and takes one batch at a time. Meanwhile the hub queues events, and replays from the journal those
 * that exceed its queue.
 */
export class EventSubscriber<T> implements EventSink {
  readonly #options: EventSubscriberOptions<T>
  readonly #encode: Encoder
  #subscription: Subscription | undefined
  #taking: Promise<void> = Promise.resolve()
  #resume: (() => void) | undefined
  #stopTimer: (() => void) | undefined
  #closed = false

  constructor(options: EventSubscriberOptions<T>) {
    this.#options = options
    this.#encode = encoder(options)
    this.#subscribe(options.cursor)
  }

  /** The position up to which all events are taken; `undefined` while a batch is being taken. */
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
    // Events that no rule wants are not stored; after a crash they are read again.
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
    this.#options.log.warn(
      { reason },
      'Messages that arrived while mqway was stopped are lost: no notification of them',
    )
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    if (this.#closed || reason === 'shutting-down') return
    // The current batch precedes the next.
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

  /** Ends it after the current batch. */
  async end(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#stopTimer?.()
    this.#subscription?.close()
    await this.#taking
  }
}

const nothing = Buffer.alloc(0)

/** Skips retained events, which are not new, and empty messages, which clear a topic. */
function encoder<T>({ read, log }: Pick<EventSubscriberOptions<T>, 'read' | 'log'>): Encoder {
  return event => {
    if (event.retained || event.payload.length === 0) return nothing
    try {
      return Buffer.from(
        read(event)
          .map(one => `${JSON.stringify(one)}\n`)
          .join(''),
      )
    } catch (error) {
      // An error here would stop the hub for all subscribers.
      log.error({ err: error, topic: event.topic }, 'Failed to read a message: no notification of it')
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
