import { Ending } from '../endings.js'
import { networkOf } from './limits.js'
import { type Clock, RateLimits } from './rate-limits.js'

/** Wrong passwords that one address (IPv6: a /64) has at once, and one more every ten seconds. */
const rate = { perSecond: 0.1, burst: 10 }

/** Those of one address that wait to be judged, and for how long they do at most, in milliseconds. */
const maxWaiting = 100
const patience = 10_000

/** The passwords of one address. */
interface Line {
  judging: number
  /** What tries again whether there is room, the one that came first first. */
  readonly waiting: Set<() => void>
}

/**
 * Bounds the wrong passwords of each address, whoever finds them wrong. As many are judged at once as may be wrong, the
 * others wait: a judge that takes its time is asked about no more guesses than a quick one.
 */
export class WrongPasswords {
  readonly #limits: RateLimits
  /** By network; only those with something to judge. */
  readonly #lines = new Map<string, Line>()

  constructor(now?: Clock) {
    this.#limits = new RateLimits({ ...rate, ...(now && { now }) })
  }

  /**
   * Has one password judged when its turn comes. It was wrong if `judge` rejects with `identity-refused`.
   *
   * @throws {Ending} `too-many-attempts`, with the seconds after which trying again makes sense; else what `judge` throws
   */
  async judge<T>(address: string, judge: () => Promise<T>): Promise<T> {
    const network = networkOf(address)
    const line = this.#lines.get(network) ?? { judging: 0, waiting: new Set() }
    await this.#enter(network, line)
    try {
      return await judge()
    } catch (error) {
      if (error instanceof Ending && error.reason === 'identity-refused') this.#limits.take(network)
      throw error
    } finally {
      line.judging -= 1
      for (const tryAgain of line.waiting) tryAgain()
      if (line.judging === 0) this.#lines.delete(network)
    }
  }

  async #enter(network: string, line: Line): Promise<void> {
    if (this.#admits(network, line)) return
    if (line.waiting.size >= maxWaiting) throw new Ending('too-many-attempts')
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer)
        line.waiting.delete(tryAgain)
      }
      const tryAgain = (): void => {
        try {
          if (!this.#admits(network, line)) return
          leave()
          resolve()
        } catch (error) {
          leave()
          reject(error)
        }
      }
      const timer = setTimeout(() => {
        leave()
        reject(new Ending('too-many-attempts'))
      }, patience)
      line.waiting.add(tryAgain)
    })
  }

  /** Whether there is room for one more, which then is taken. */
  #admits(network: string, line: Line): boolean {
    const wait = this.#limits.wait(network)
    if (wait > 0) throw new Ending('too-many-attempts', { retryAfter: Math.ceil(wait / 1000) })
    if (this.#limits.wait(network, line.judging + 1) > 0) return false
    line.judging += 1
    this.#lines.set(network, line)
    return true
  }
}
