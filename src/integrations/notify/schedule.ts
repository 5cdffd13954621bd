/** Maximum number of mails in any period. */
export interface MailRate {
  readonly count: number
  /** In milliseconds. */
  readonly per: number
}

/** The state of a rule that its next mail depends on. */
export interface MailPace {
  /** Time of the first collected event, in milliseconds since 1970. */
  readonly first: number
  /** How long it collects, in milliseconds. */
  readonly collect: number
  /** Times of the last mails, oldest first. */
  readonly sent: readonly number[]
  readonly atMost: MailRate
}

/**
 * When the next mail of a rule is due, in milliseconds since 1970: after `collect`, and within `atMost`.
 *
 * Times in the future are from before a change of the clock; they do not delay mails.
 */
export function nextMailAt(now: number, { first, collect, sent, atMost: { count, per } }: MailPace): number {
  const blocking = sent.filter(time => time <= now).at(-count)
  return Math.max(first > now ? now : first + collect, blocking === undefined ? 0 : blocking + per)
}

/** The waits between attempts to send a mail, in milliseconds. */
const [firstRetry, maxRetry] = [30_000, 3_600_000]

/** Whether an attempt planned for `next` is due; also after the clock was set back. */
export function isDue(next: number, now: number): boolean {
  return next <= now || next > now + maxRetry
}

/** The delay after `attempts` failed attempts in a row; at least 1. */
export function retryDelay(attempts: number): number {
  return Math.min(firstRetry * 2 ** Math.min(attempts - 1, 20), maxRetry)
}
