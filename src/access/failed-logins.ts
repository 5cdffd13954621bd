import { GatewayError } from '../base/errors.js'
import { Exclusive } from '../base/exclusive.js'
import { MemoryState } from '../storage/memory-state.js'
import type { SharedState } from '../storage/shared-state.js'
import { networkOf } from './limits.js'
import { LoginSlots } from './login-slots.js'

/** Failed logins of one address (IPv6: a /64): ten at once, and one more every ten seconds. */
const rate = { perSecond: 0.1, burst: 10 }

/** Waiting logins of one address, and how long they wait, in milliseconds. */
const maxWaiting = 100
const waitTimeout = 10_000

/** Interval of attempts to get a slot while logins at other gateways have them, in milliseconds. */
const retryInterval = 100
/** Time limit of the shared state, and how long it is not asked after that, in milliseconds. */
const [sharedTimeout, pause] = [1000, 3000]

export interface FailedLoginOptions {
  /** What several gateways or workers share; left out for none. */
  readonly state?: SharedState | undefined
  /** Monotonic milliseconds. */
  readonly now?: (() => number) | undefined
}

/** A login that waits for a slot. */
interface Waiter {
  start(slot: Slot): void
  /** Whether the client has closed its connection. */
  isGone(): boolean
  refuse(error: GatewayError): void
}

/** A slot of this gateway, and one of all gateways; the latter is left out while the shared state is away. */
interface Slot {
  readonly id: string
  readonly sharedId: string | undefined
}

/** The logins of one network. */
interface NetworkState {
  /** Those that run, wait, or ask for a slot. */
  open: number
  /** Oldest first. */
  readonly waiting: Set<Waiter>
  readonly tasks: Exclusive
  retryTimer: NodeJS.Timeout | undefined
}

/**
 * Limits failed logins of each address, whichever verifier checks the passwords, at all gateways. An address has as many slots for concurrent
 * verifications as it has failures left, so that a slow verifier allows no more guesses than a fast one; further logins wait. The newest gets the
 * next slot, because the oldest is the next to give up; closed connections get none. While the shared state is away, each gateway has its own limit.
 */
export class FailedLoginLimiter {
  readonly #own: LoginSlots
  readonly #shared: LoginSlots | undefined
  /** By network; only those with a login. */
  readonly #networks = new Map<string, NetworkState>()
  #pausedUntil = 0

  constructor({ state, now }: FailedLoginOptions = {}) {
    this.#own = new LoginSlots(new MemoryState(now), rate)
    this.#shared = state && new LoginSlots(state, rate)
  }

  /**
   * Calls `verify` when there is a slot. A rejection with `identity-refused` is a failed login.
   *
   * @param isGone whether the client has closed its connection
   * @throws {GatewayError} `client-gone`; `too-many-attempts`, with the seconds after which trying again makes sense; else the error of `verify`
   */
  async run<T>(address: string, verify: () => Promise<T>, isGone: () => boolean = neverGone): Promise<T> {
    const network = networkOf(address)
    const state = this.#networks.get(network) ?? newState()
    const max = maxWaiting + rate.burst
    if (state.open >= max) for (const waiter of state.waiting) refuseGone(waiter)
    if (state.open >= max) throw new GatewayError('too-many-attempts')
    this.#networks.set(network, state)
    state.open += 1
    try {
      const slot = await this.#waitForSlot(network, state, isGone)
      let hasFailed = false
      try {
        return await verify()
      } catch (error) {
        hasFailed = error instanceof GatewayError && error.reason === 'identity-refused'
        throw error
      } finally {
        // One change at a time: changes at once would be repeated, each after another one.
        await state.tasks.run(() => this.#end(network, slot, hasFailed))
        this.#startNext(network, state)
      }
    } finally {
      state.open -= 1
      if (state.open === 0) this.#networks.delete(network)
    }
  }

  async #waitForSlot(network: string, state: NetworkState, isGone: () => boolean): Promise<Slot> {
    const slot = await state.tasks.run(() => this.#take(network, state))
    if (slot) return slot
    if (isGone()) throw new GatewayError('client-gone')
    return new Promise<Slot>((resolve, reject) => {
      const remove = (): void => {
        clearTimeout(timer)
        state.waiting.delete(waiter)
      }
      const refuse = (error: unknown): void => {
        remove()
        reject(error)
      }
      const timer = setTimeout(() => refuse(new GatewayError('too-many-attempts')), waitTimeout)
      const waiter: Waiter = {
        start: given => {
          remove()
          resolve(given)
        },
        ...{ isGone, refuse },
      }
      state.waiting.add(waiter)
    })
  }

  /** Gives the slots that are free to those that wait, the newest first. */
  #startNext(network: string, state: NetworkState): void {
    void state.tasks.run(async () => {
      for (;;) {
        for (const waiter of state.waiting) refuseGone(waiter)
        if (state.waiting.size === 0) return
        const slot = await this.#take(network, state).catch(error => {
          for (const waiter of state.waiting) waiter.refuse(error)
        })
        if (!slot) return
        const newest = [...state.waiting].at(-1)
        if (!newest) return this.#end(network, slot, false)
        newest.start(slot)
      }
    })
  }

  /** @returns `undefined` while there is none @throws {GatewayError} rejects with `too-many-attempts` */
  async #take(network: string, state: NetworkState): Promise<Slot | undefined> {
    const own = await this.#own.take(network)
    if (own === 'busy') return undefined
    if ('wait' in own) throw tooMany(own.wait)
    let isLate = false
    const shared = await this.#inTime(async shared => {
      const slot = await shared.take(network)
      if (isLate && typeof slot === 'object' && 'id' in slot) await shared.end(network, slot.id, false)
      return slot
    })
    // A slot that comes after the time limit is given back.
    isLate = true
    if (typeof shared === 'object' && 'id' in shared) return { id: own.id, sharedId: shared.id }
    if (shared === undefined) return { id: own.id, sharedId: undefined }
    await this.#own.end(network, own.id, false)
    if (shared !== 'busy') throw tooMany(shared.wait)
    // Nobody tells when a login at another gateway has ended.
    state.retryTimer ??= setTimeout(() => {
      state.retryTimer = undefined
      this.#startNext(network, state)
    }, retryInterval).unref()
    return undefined
  }

  async #end(network: string, { id, sharedId }: Slot, hasFailed: boolean): Promise<void> {
    await this.#own.end(network, id, hasFailed)
    if (sharedId !== undefined) await this.#inTime(shared => shared.end(network, sharedId, hasFailed))
  }

  /** @returns `undefined` while the shared state is away, or where there is none */
  async #inTime<T>(ask: (shared: LoginSlots) => Promise<T>): Promise<T | undefined> {
    if (!this.#shared || performance.now() < this.#pausedUntil) return undefined
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<undefined>(resolve => {
      timer = setTimeout(() => {
        this.#pausedUntil = performance.now() + pause
        resolve(undefined)
      }, sharedTimeout)
    })
    try {
      return await Promise.race([ask(this.#shared), late])
    } catch {
      return undefined
    } finally {
      clearTimeout(timer)
    }
  }
}

function newState(): NetworkState {
  return { open: 0, waiting: new Set(), tasks: new Exclusive(), retryTimer: undefined }
}

function tooMany(wait: number): GatewayError {
  return new GatewayError('too-many-attempts', { retryAfter: Math.ceil(wait / 1000) })
}

function neverGone(): boolean {
  return false
}

/** Refuses a waiting login whose client has closed its connection. */
function refuseGone(waiter: Waiter): void {
  if (waiter.isGone()) waiter.refuse(new GatewayError('client-gone'))
}
