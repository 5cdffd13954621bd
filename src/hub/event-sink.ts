import type { Event } from '../journal/event.js'
import type { GapReason } from '../journal/journal.js'

/**
 * Encodes an event for a subscriber. Subscribers with the same format share one function, and the bytes of each event, which must not be changed.
 * It must not throw.
 */
export type Encoder = (event: Event) => Buffer

export interface Gap {
  readonly reason: GapReason
  /** The cursor of the subscriber. */
  readonly cursor: string
  /** The cursor from which on nothing is missing. */
  readonly resumes: string
  /** The filters that it concerns; left out for all. */
  readonly filters?: readonly string[]
}

/**
 * The reason for which the hub closes a subscription: the client reads too slowly, the limit is reached, the journal cannot be read, or the hub
 * closes.
 */
export type CloseReason = 'too-slow' | 'complete' | 'journal-unavailable' | 'shutting-down'

/** Receives the events of a subscription: one response, or one socket. No method may throw. */
export interface EventSink {
  /** Writes one or several encoded events. @returns `false` if nothing more should be written until `onDrain` */
  write(data: Buffer): boolean
  /** Has `resume` called once when there is room again. Called after each `write` that returned `false`. */
  onDrain(resume: () => void): void
  /** Events are missing before the next ones. */
  gap(gap: Gap): void
  /** Everything that was there has been written. Called again after each change of filters, and after a gap. */
  live?(): void
  /**
   * The hub has closed the subscription.
   *
   * @param cursor for another subscription; `undefined` for none
   */
  close(reason: CloseReason, cursor: string | undefined): void
}
