/** Maximum number of mails or calls in any period. */
export interface NotificationRate {
  readonly count: number
  /** In milliseconds. */
  readonly per: number
}

/** The state of a rule that its next mail or call depends on. */
export interface NotificationPace {
  /** Time of the first collected event, in milliseconds since 1970. */
  readonly first: number
  /** How long it collects, in milliseconds. */
  readonly collect: number
  /** Times of the last mails or calls, oldest first. */
  readonly sent: readonly number[]
  /** `undefined` for any number. */
  readonly atMost: NotificationRate | undefined
}

/**
 * When the next mail or call of a rule is due, in milliseconds since 1970: after `collect`, and within `atMost`.
 *
 * Times in the future are from before a change of the clock; they do not delay it.
 */
export function nextDueAt(now: number, { first, collect, sent, atMost }: NotificationPace): number {
  const blocking = atMost && sent.filter(time => time <= now).at(-atMost.count)
  return Math.max(first > now ? now : first + collect, blocking === undefined ? 0 : blocking + (atMost?.per ?? 0))
}

/** Delays between attempts to send, in milliseconds: the first one, and the longest. Each is twice the one before it. */
export interface RetryDelays {
  readonly first: number
  readonly max: number
  /** Whether each delay is shortened at random, by up to half, so that many senders do not retry together. */
  readonly jitter?: boolean
}

/** The longest delay of any attempt, in milliseconds. */
export const maxRetryDelay = 3_600_000

/** Whether an attempt planned for `next` is due; also after the clock was set back. */
export function isDue(next: number, now: number): boolean {
  return next <= now || next > now + maxRetryDelay
}

/** The delay after `attempts` failed attempts in a row; at least 1. */
export function retryDelay(attempts: number, { first, max, jitter = false }: RetryDelays): number {
  const delay = Math.min(first * 2 ** Math.min(attempts - 1, 20), max)
  return jitter ? Math.round(delay * (0.5 + Math.random() / 2)) : delay
}
