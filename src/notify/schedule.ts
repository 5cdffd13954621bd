/** How many mails there may be in any time. */
export interface MailRate {
  readonly count: number
  /** In milliseconds. */
  readonly per: number
}

/**
 * When the next mail of a rule is due, in milliseconds since 1970: when it has collected for long enough, and when there
 * may be one more.
 *
 * @param first when the first thing happened that it is about
 * @param sent when the last ones were made, the oldest first
 */
export function nextMailAt(first: number, collect: number, sent: readonly number[], { count, per }: MailRate): number {
  const blocking = sent.at(-count)
  return Math.max(first + collect, blocking === undefined ? 0 : blocking + per)
}

/** The waits between attempts to send a mail, in milliseconds. */
const [firstRetry, longestRetry] = [30_000, 3_600_000]

/** How long to wait after so many attempts in a row have failed; at least 1. */
export function retryDelay(attempts: number): number {
  return Math.min(firstRetry * 2 ** Math.min(attempts - 1, 20), longestRetry)
}
