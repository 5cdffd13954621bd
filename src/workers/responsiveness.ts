import { setTimeout as delay } from 'node:timers/promises'
import type { Channel } from './channel.js'

/** Time of one check, and checks without an answer in a row after which a worker counts as hung. */
const [defaultInterval, maxUnanswered] = [5000, 6]

export interface ResponsivenessOptions {
  readonly channel: Pick<Channel, 'ask'>
  /** Ends the checks. */
  readonly signal: AbortSignal
  /** Milliseconds; default: 5000. */
  readonly interval?: number | undefined
}

/**
 * Asks a worker again and again whether its event loop runs. Checks are counted, and not the time, because all processes may have been stopped together meanwhile.
 *
 * @returns a promise that resolves to `hung` after 30 s without an answer, or to `ended` with `signal`
 */
export async function watchResponsiveness({
  channel,
  signal,
  interval = defaultInterval,
}: ResponsivenessOptions): Promise<'hung' | 'ended'> {
  for (let unanswered = 0; unanswered < maxUnanswered; ) {
    const answer = channel.ask('isRunning', undefined, interval).catch(() => false)
    await delay(interval, undefined, { signal, ref: false }).catch(() => {})
    if (signal.aborted) return 'ended'
    unanswered = (await answer) ? 0 : unanswered + 1
  }
  return 'hung'
}
