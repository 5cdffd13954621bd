import { GatewayError } from '../base/errors.js'
import { networkOf } from './limits.js'
import { RateLimits } from './rate-limits.js'

/** Wrong passwords that one address (IPv6: a /64) has at once, and one more every ten seconds. */
const rate = { perSecond: 0.1, burst: 10 }

/** Those of one address that wait to be judged, and for how long they do at most, in milliseconds. */
const maxWaiting = 100
const patience = 10_000

/** A password that waits to be judged. */
interface Waiter {
  /** Tries again whether there is room. */
  tryAgain(): void
  /** Whether nobody waits for the answer any more. */
  isGone(): boolean
  refuse(error: GatewayError): void
}

/** The passwords of one address. */
interface Line {
  judging: number
  /** In the order in which they came. */
  readonly waiting: Set<Waiter>
}

/**
 * Bounds the wrong passwords of each address, whoever finds them wrong. As many are judged at once as may be wrong, the
 * others wait: a judge that takes its time is asked about no more guesses than a quick one. It is asked for those who are still there
 * alone, and for the newest first: who has waited for long is the next to give up.
 */
export class WrongPasswords {
  readonly #limits: RateLimits
  /** By network; only those with something to judge. */
  readonly #lines = new Map<string, Line>()

  constructor(now?: () => number) {
    this.#limits = new RateLimits({ ...rate, ...(now && { now }) })
  }

  /**
   * Has one password judged when its turn comes. It was wrong if `judge` rejects with `identity-refused`.
   *
   * @param isGone whether the client has left, so that nobody waits for the answer
   * @throws {Ending} `client-gone`; `too-many-attempts`, with the seconds after which trying again makes sense; else what `judge` throws
   */
  async judge<T>(address: string, judge: () => Promise<T>, isGone: () => boolean = isNeverGone): Promise<T> {
    const network = networkOf(address)
    const line = this.#lines.get(network) ?? { judging: 0, waiting: new Set() }
    await this.#enter(network, line, isGone)
    try {
      return await judge()
    } catch (error) {
      if (error instanceof GatewayError && error.reason === 'identity-refused') this.#limits.take(network)
      throw error
    } finally {
      line.judging -= 1
      for (const waiter of [...line.waiting].reverse()) waiter.tryAgain()
      if (line.judging === 0) this.#lines.delete(network)
    }
  }

  async #enter(network: string, line: Line, isGone: () => boolean): Promise<void> {
    if (this.#admits(network, line)) return
    if (line.waiting.size >= maxWaiting) for (const waiter of line.waiting) refuseGone(waiter)
    if (line.waiting.size >= maxWaiting) throw new GatewayError('too-many-attempts')
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer)
        line.waiting.delete(waiter)
      }
      const refuse = (error: unknown): void => {
        leave()
        reject(error)
      }
      const tryAgain = (): void => {
        if (refuseGone(waiter)) return
        try {
          if (!this.#admits(network, line)) return
          leave()
          resolve()
        } catch (error) {
          refuse(error)
        }
      }
      const timer = setTimeout(() => refuse(new GatewayError('too-many-attempts')), patience)
      const waiter: Waiter = { tryAgain, isGone, refuse }
      line.waiting.add(waiter)
    })
  }

  /** Whether there is room for one more, which then is taken. */
  #admits(network: string, line: Line): boolean {
    const wait = this.#limits.wait(network)
    if (wait > 0) throw new GatewayError('too-many-attempts', { retryAfter: Math.ceil(wait / 1000) })
    if (this.#limits.wait(network, line.judging + 1) > 0) return false
    line.judging += 1
    this.#lines.set(network, line)
    return true
  }
}

function isNeverGone(): boolean {
  return false
}

/** Lets one go for whom nobody waits any more; returns whether it is one. */
function refuseGone(waiter: Waiter): boolean {
  const isGone = waiter.isGone()
  if (isGone) waiter.refuse(new GatewayError('client-gone'))
  return isGone
}
