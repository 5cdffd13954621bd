import { randomBytes } from 'node:crypto'
import { type Redis, Script } from './redis.js'

/** How long the lease lasts without a renewal, and the interval of renewals, in milliseconds. */
const [duration, interval] = [3000, 500]
/** How long its holder may be unable to work before it gives the lease to another gateway, in milliseconds. */
const idleTimeout = 1500
/** How long it then leaves the lease to others, in milliseconds. */
const restTime = 3000

/**
 * Renews a lease, or takes it. A lease that has ended is not renewed: another gateway may have had it meanwhile. Keys: the lease. Arguments: token,
 * duration, `renew` or `take`. @returns 1 if it is held
 */
const holdScript = new Script(`
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if holder or ARGV[3] ~= 'take' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX')
return 1
`)

/** Gives a lease back. Keys: the lease. Arguments: token. */
const releaseScript = new Script(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`)

/** Takes a lease in Redis, or renews it, for `duration` milliseconds. @returns whether it is held */
export async function holdLease(
  redis: Redis,
  key: string,
  token: string,
  duration: number,
  how: 'take' | 'renew',
): Promise<boolean> {
  return (await holdScript.run(redis, [key], [token, duration, how])) === 1
}

export async function releaseLease(redis: Redis, key: string, token: string): Promise<void> {
  await releaseScript.run(redis, [key], [token])
}

export interface LeaseOptions {
  /** Takes or renews the lease. @returns whether it is held */
  readonly hold: (token: string, duration: number, how: 'take' | 'renew') => Promise<boolean>
  readonly release: (token: string) => Promise<void>
  /** Whether this gateway may take the lease. */
  readonly isCandidate: () => boolean
  /** Whether this gateway works, while it holds the lease. */
  readonly isWorking: () => boolean
  readonly onHeld: (token: string) => Promise<void>
  readonly onLost: () => Promise<void>
}

/**
 * Decides which gateway does what only one of them may do: the one that holds the lease, which ends by itself if its holder is stopped.
 *
 * Its token is another one each time, and is checked with each write, so that a former holder writes nothing.
 */
export class Lease {
  readonly #options: LeaseOptions
  #token: string | undefined
  /** When the lease ends, unless it is renewed. */
  #end = 0
  #workedAt = 0
  #restsUntil = 0
  readonly #closing = new AbortController()
  readonly #running: Promise<void>

  constructor(options: LeaseOptions) {
    this.#options = options
    this.#running = this.#run()
  }

  /** Also false for a holder that has been stopped for too long. */
  get isHeld(): boolean {
    return this.#token !== undefined && performance.now() < this.#end
  }

  /** Gives the lease back; another gateway may take it at once. */
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
    const { hold, isCandidate, isWorking, onHeld, onLost } = this.#options
    const now = performance.now()
    if (this.#token !== undefined) {
      if (isWorking()) this.#workedAt = now
      const isLost = await this.#isLost(this.#token, now)
      if (isLost) {
        this.#token = undefined
        await onLost()
      } else if (now - this.#workedAt > idleTimeout) {
        this.#restsUntil = now + restTime
        await this.#giveBack()
      }
      return
    }
    if (!isCandidate() || now < this.#restsUntil) return
    const token = randomBytes(12).toString('base64url')
    if (!(await hold(token, duration, 'take'))) return
    this.#token = token
    this.#end = now + duration
    this.#workedAt = performance.now()
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
