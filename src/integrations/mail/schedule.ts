/** How many mails there may be in any time. */
export interface MailRate {
  readonly count: number
  /** In milliseconds. */
  readonly per: number
}

/** What a rule has done and has to do, as the next mail depends on it. */
export interface MailPace {
  /** When the first thing happened that it is about, in milliseconds since 1970. */
  readonly first: number
  /** How long it collects, in milliseconds. */
  readonly collect: number
  /** When the last ones were made, the oldest first. */
  readonly sent: readonly number[]
  readonly atMost: MailRate
}

/**
 * When the next mail of a rule is due, in milliseconds since 1970: when it has collected for long enough, and when there
 * may be one more.
 *
 * A time that is yet to come was told by a clock that has been put right since, and keeps nothing waiting.
 */
export function nextMailAt(now: number, { first, collect, sent, atMost: { count, per } }: MailPace): number {
  const blocking = sent.filter(time => time <= now).at(-count)
  return Math.max(first > now ? now : first + collect, blocking === undefined ? 0 : blocking + per)
}

/** The waits between attempts to send a mail, in milliseconds. */
const [firstRetry, longestRetry] = [30_000, 3_600_000]

/** Whether it is time for an attempt that was to be at `next`; also when the clock has gone back since that was said. */
export function isDue(next: number, now: number): boolean {
  return next <= now || next > now + longestRetry
}

/** How long to wait after so many attempts in a row have failed; at least 1. */
export function retryDelay(attempts: number): number {
  return Math.min(firstRetry * 2 ** Math.min(attempts - 1, 20), longestRetry)
}
