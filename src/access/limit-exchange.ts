import type { Logger } from '../base/log.js'
import type { SharedState, Usage } from '../storage/shared-state.js'
import type { RateLimits } from './rate-limits.js'

/** Interval of exchanges, in milliseconds, and their number where there is more to get. */
const [defaultInterval, maxExchanges] = [200, 10]

/** Keys that one exchange reports, and others' that are counted without a pause. */
const [maxReported, maxAtOnce] = [1000, 500]

/** Shares a rate limit with other gateways, by a name. */
export type ShareLimit = (name: string, limits: RateLimits) => void

export interface LimitExchangeOptions {
  readonly state: SharedState
  readonly log: Logger
  /** Milliseconds; default: 200. */
  readonly interval?: number
}

/**
 * Shares rate limits between gateways: each one reports the tokens that it has spent, and spends those of the others. Decisions stay local, so
 * that they cost no round trip: each further gateway may admit a burst, and the rate of two intervals, before it knows of the others. While the
 * state is away, each gateway has its own limits.
 */
export class LimitExchange {
  readonly #options: LimitExchangeOptions
  readonly #limits = new Map<string, RateLimits>()
  readonly #timer: NodeJS.Timeout
  #running: Promise<void> | undefined
  #isAway = false

  constructor(options: LimitExchangeOptions) {
    this.#options = options
    this.#timer = setInterval(() => {
      this.#running ??= this.run().finally(() => {
        this.#running = undefined
      })
    }, options.interval ?? defaultInterval).unref()
  }

  /** Shares a rate limit. @param name the same at all gateways */
  readonly share: ShareLimit = (name, limits) => {
    limits.reportUsage()
    this.#limits.set(name, limits)
  }

  /** Exchanges once. Never rejects. */
  async run(): Promise<void> {
    try {
      for (let count = 0; count < maxExchanges; count++) {
        const reports = await this.#options.state.exchange(this.#takeUsage())
        for (const { age, usage } of reports) await this.#spend(usage, age)
        if (reports.length === 0) break
      }
      this.#isAway = false
    } catch (error) {
      if (!this.#isAway) this.#options.log.warn({ err: error }, 'rate limits are those of this gateway alone for now')
      this.#isAway = true
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }

  #takeUsage(): Usage[] {
    const usage: Usage[] = []
    for (const [limit, limits] of this.#limits) {
      for (const [key, amount] of limits.takeUsage(maxReported - usage.length)) usage.push({ limit, key, amount })
    }
    return usage
  }

  async #spend(usage: readonly Usage[], age: number): Promise<void> {
    for (const [index, { limit, key, amount }] of usage.entries()) {
      this.#limits.get(limit)?.spendElsewhere(key, amount, age)
      if (index % maxAtOnce === maxAtOnce - 1) await new Promise(setImmediate)
    }
  }
}
