/** The time, and what happens later. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
  /**
   * Calls `run` in some milliseconds, at the earliest.
   *
   * @returns what takes that back
   */
  after(milliseconds: number, run: () => void): () => void
}

/** The clock of the machine; what waits does not keep the process. */
export const systemClock: Clock = {
  now: Date.now,
  after: (milliseconds, run) => {
    const timer = setTimeout(run, milliseconds).unref()
    return () => clearTimeout(timer)
  },
}
