import { randomBytes } from 'node:crypto'

/** How long the lease lasts without a renewal, and the interval of renewals, in milliseconds. */
const [duration, interval] = [3000, 500]
/** How long its holder may be without the broker before it gives the lease to another gateway, in milliseconds. */
const brokerTimeout = 1500
/** How long it then leaves the lease to others, in milliseconds. */
const restTime = 3000

export interface ReaderLeaseOptions {
  /** Takes or renews the lease. @returns whether it is held */
  readonly hold: (token: string, duration: number, how: 'take' | 'renew') => Promise<boolean>
  readonly release: (token: string) => Promise<void>
  /** Whether this gateway reaches the broker. */
  readonly isReachable: () => boolean
  /** Whether this gateway reads, while it holds the lease. */
  readonly isReading: () => boolean
  readonly onHeld: (token: string) => Promise<void>
  readonly onLost: () => Promise<void>
}

/**
 * Decides which gateway reads the broker: the one that holds the lease, which ends by itself if its holder is stopped.
 *
 * Its token is another one each time, and is checked with each append, so that a former holder appends nothing.
 */
export class ReaderLease {
  readonly #options: ReaderLeaseOptions
  #token: string | undefined
  /** When the lease ends, unless it is renewed. */
  #end = 0
  #readAt = 0
  #restsUntil = 0
  readonly #closing = new AbortController()
  readonly #running: Promise<void>

  constructor(options: ReaderLeaseOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  /** Also false for a holder that has been stopped for too long. */
  get isHeld(): boolean {
    return this.#token !== undefined && performance.now() < this.#end
  }

  /** Ends the reading; another gateway may continue at once. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running
    await this.#giveBack()
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      await this.#step().catch(() => {})
      await new Promise<void>(resolve => {
        const timer = setTimeout(done, interval)
        function done(): void {
          clearTimeout(timer)
          signal.removeEventListener('abort', done)
          resolve()
        }
        signal.addEventListener('abort', done)
      })
    }
  }

  async #step(): Promise<void> {
    const { hold, isReachable, isReading, onHeld, onLost } = this.#options
    const now = performance.now()
    if (this.#token !== undefined) {
      if (isReading()) this.#readAt = now
      const isLost = await this.#isLost(this.#token, now)
      if (isLost) {
        this.#token = undefined
        await onLost()
      } else if (now - this.#readAt > brokerTimeout) {
        this.#restsUntil = now + restTime
        await this.#giveBack()
      }
      return
    }
    if (!isReachable() || now < this.#restsUntil) return
    const token = randomBytes(12).toString('base64url')
    if (!(await hold(token, duration, 'take'))) return
    this.#token = token
    this.#end = now + duration
    this.#readAt = performance.now()
    await onHeld(token)
  }

  async #isLost(token: string, now: number): Promise<boolean> {
    try {
      if (!(await this.#options.hold(token, duration, 'renew'))) return true
      this.#end = now + duration
      return false
    } catch {
      return performance.now() >= this.#end
    }
  }

  async #giveBack(): Promise<void> {
    const token = this.#token
    if (token === undefined) return
    this.#token = undefined
    await this.#options.onLost()
    await this.#options.release(token).catch(() => {})
  }
}
