/** Time and timers. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
  /** Milliseconds since any moment, never going back: the time of day may be set. */
  monotonic(): number
  /**
   * Calls `run` once, after `milliseconds`. The timer does not keep the process alive.
   *
   * @returns a function that cancels it
   */
  after(milliseconds: number, run: () => void): () => void
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  after: (milliseconds, run) => {
    const timer = setTimeout(run, milliseconds).unref()
    return () => clearTimeout(timer)
  },
}
