import type { Publisher } from './publisher.js'

/** Where the journal's messages come from: what is published at the broker is appended to the journal, and `publish` publishes there. */
export interface Source extends Publisher {
  /** Whether messages come and go. */
  readonly ready: boolean
  /** Why it is not ready, with the broker's address; `undefined` while it is. */
  readonly failure: string | undefined
  /** Appends what has come, and ends. Idempotent. */
  close(): Promise<void>
}
