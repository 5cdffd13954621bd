import type { Duplex } from 'node:stream'

/** Who keeps what comes, and is told where the broker does not wait for that. */
export interface Custodian {
  /** Called before messages are acknowledged to their publishers that are not kept; that waits for what this returns. */
  lapsed(): Promise<void>
  /** Called when none is left of those. */
  restored(): void
  /** Called when a publisher waits until so many of the messages that came are kept, from the first on. */
  awaited(count: number): void
}

/** A stream to a broker; that in this process can wait with its acknowledgements until what comes over the stream is kept. */
export interface SessionStream extends Duplex {
  /** @returns to be called with how many more of the messages that came are kept, in their order */
  takeCustody?(custodian: Custodian): (count: number) => void
}
