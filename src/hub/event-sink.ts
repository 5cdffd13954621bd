import type { Event } from '../journal/event.js'
import type { GapReason } from '../journal/journal.js'

/**
 * How an event goes to a subscriber. The same function for all that speak alike: each event is encoded once for it, and
 * the bytes, which nobody may change, go to all of them. It must not throw.
 */
export type Encoder = (event: Event) => Buffer

/** Events that a subscriber should have got, and will not. */
export interface Gap {
  readonly reason: GapReason
  /** The cursor that it is about. */
  readonly cursor: string
  /** The place from which on it gets everything again. */
  readonly resumes: string
  /** Which of its filters it is about; left out for all. */
  readonly filters?: readonly string[]
}

/**
 * Why the hub lets go of a subscriber: it reads too slowly, it has as much as it wanted, the journal cannot be read just
 * now, or the hub closes.
 */
export type CloseReason = 'too-slow' | 'complete' | 'journal-unavailable' | 'shutting-down'

/** Where a subscription's events go: one response, or one socket. None of this may throw. */
export interface EventSink {
  /** Takes what one or several events were encoded to; `false` where no more should come until `onDrain`. */
  write(data: Buffer): boolean
  /** Has `resume` called once when there is room again. Asked for after each `write` that was `false`. */
  onDrain(resume: () => void): void
  /** Events are missing here, before whatever is written next. */
  gap(gap: Gap): void
  /** All that was there has been written; from now on it gets what comes. Again after each change of its filters, and after a gap. */
  live?(): void
  /**
   * The hub has let go of it.
   *
   * @param cursor where to go on with another subscription; `undefined` for from the start
   */
  close(reason: CloseReason, cursor: string | undefined): void
}
