import type { Publisher } from './publisher.js'

/** A source of the journal's events: appends the broker's messages to the journal, and publishes at the broker. */
export interface Source extends Publisher {
  /** Why it is not connected, with the broker's address; `undefined` while it is. */
  readonly failure: string | undefined
  /** Appends the received messages and ends. Idempotent. */
  close(): Promise<void>
}
