import { GatewayError } from '../base/errors.js'
import { networkOf } from './limits.js'
import { RateLimits } from './rate-limits.js'

/** Failed logins of one address (IPv6: a /64): ten at once, and one more every ten seconds. */
const rate = { perSecond: 0.1, burst: 10 }

/** Waiting logins of one address, and how long they wait, in milliseconds. */
const maxWaiting = 100
const waitTimeout = 10_000

/** A login that waits for a slot. */
interface Waiter {
  /** Tries again to get a slot. */
  retry(): void
  /** Whether the client has closed its connection. */
  isGone(): boolean
  refuse(error: GatewayError): void
}

/** The logins of one network. */
interface NetworkState {
  running: number
  /** Oldest first. */
  readonly waiting: Set<Waiter>
}

/**
 * Limits failed logins of each address, whichever verifier checks the passwords. An address has as many slots for concurrent verifications
 * as it has failures left, so that a slow verifier allows no more guesses than a fast one; further logins wait. The newest gets the next slot,
 * because the oldest is the next to give up; closed connections get none.
 */
export class FailedLoginLimiter {
  readonly #limits: RateLimits
  /** By network; only those with a running login. */
  readonly #networks = new Map<string, NetworkState>()

  constructor(now?: () => number) {
    this.#limits = new RateLimits({ ...rate, ...(now && { now }) })
  }

  /**
   * Calls `verify` when there is a slot. A rejection with `identity-refused` is a failed login.
   *
   * @param isGone whether the client has closed its connection
   * @throws {GatewayError} `client-gone`; `too-many-attempts`, with the seconds after which trying again makes sense; else the error of `verify`
   */
  async run<T>(address: string, verify: () => Promise<T>, isGone: () => boolean = neverGone): Promise<T> {
    const network = networkOf(address)
    const state = this.#networks.get(network) ?? { running: 0, waiting: new Set() }
    await this.#waitForSlot(network, state, isGone)
    try {
      return await verify()
    } catch (error) {
      if (error instanceof GatewayError && error.reason === 'identity-refused') this.#limits.take(network)
      throw error
    } finally {
      state.running -= 1
      for (const waiter of [...state.waiting].reverse()) waiter.retry()
      if (state.running === 0) this.#networks.delete(network)
    }
  }

  async #waitForSlot(network: string, state: NetworkState, isGone: () => boolean): Promise<void> {
    if (this.#takeSlot(network, state)) return
    if (state.waiting.size >= maxWaiting) for (const waiter of state.waiting) refuseGone(waiter)
    if (state.waiting.size >= maxWaiting) throw new GatewayError('too-many-attempts')
    await new Promise<void>((resolve, reject) => {
      const remove = (): void => {
        clearTimeout(timer)
        state.waiting.delete(waiter)
      }
      const refuse = (error: unknown): void => {
        remove()
        reject(error)
      }
      const retry = (): void => {
        if (refuseGone(waiter)) return
        try {
          if (!this.#takeSlot(network, state)) return
          remove()
          resolve()
        } catch (error) {
          refuse(error)
        }
      }
      const timer = setTimeout(() => refuse(new GatewayError('too-many-attempts')), waitTimeout)
      const waiter: Waiter = { retry, isGone, refuse }
      state.waiting.add(waiter)
    })
  }

  /** Takes a slot. @returns whether there was one */
  #takeSlot(network: string, state: NetworkState): boolean {
    const wait = this.#limits.wait(network)
    if (wait > 0) throw new GatewayError('too-many-attempts', { retryAfter: Math.ceil(wait / 1000) })
    if (this.#limits.wait(network, state.running + 1) > 0) return false
    state.running += 1
    this.#networks.set(network, state)
    return true
  }
}

function neverGone(): boolean {
  return false
}

/** Refuses a waiting login whose client has closed its connection. @returns whether it has */
function refuseGone(waiter: Waiter): boolean {
  const isGone = waiter.isGone()
  if (isGone) waiter.refuse(new GatewayError('client-gone'))
  return isGone
}
