import { randomBytes } from 'node:crypto'
import {
  type Decision,
  type SharedState,
  type StateCollection,
  type StateRecord,
  updateState,
} from '../storage/shared-state.js'
import type { Rate } from './rate-limits.js'

/** Milliseconds after which a login counts as ended, if its gateway has. */
const maxDuration = 60_000

/** Networks with wrong passwords or running logins, and their bytes. */
const [maxNetworks, maxBytes] = [100_000, 32 * 1024 ** 2]

/** A slot for one login, or that there is none: for `wait` milliseconds, or until another login has ended. */
export type LoginSlot = { readonly id: string } | { readonly wait: number } | 'busy'

/** What is stored of a network. */
interface StoredLogins {
  /** Failed logins, less those that have been forgiven since. */
  readonly failed: number
  /** Milliseconds that each running login has left, by its id. */
  readonly running: Readonly<Record<string, number>>
}

/** Slots for concurrent logins of each network: as many as it has failures left. */
export class LoginSlots {
  readonly #rate: Rate
  readonly #networks: StateCollection

  /** @param rate of failed logins of one network */
  constructor(state: SharedState, rate: Rate) {
    this.#rate = rate
    const bounds = { maxEntries: maxNetworks, maxBytes, maxEntriesPerOwner: maxNetworks, maxBytesPerOwner: maxBytes }
    const maxAge = Math.max(maxDuration, (1000 * rate.burst) / rate.perSecond)
    this.#networks = state.collection('logins', { ...bounds, maxAge, whenFull: 'evict' })
  }

  /** Takes a slot. Rejects as `StateCollection`. */
  async take(network: string): Promise<LoginSlot> {
    const { perSecond, burst } = this.#rate
    const id = randomBytes(6).toString('base64url')
    const decide = (record: StateRecord): Decision<LoginSlot> => {
      const { failed, running } = this.#read(record)
      const missing = failed + 1 - burst
      // Rounding errors of forgiven failures.
      if (missing > 1e-6) return { result: { wait: (1000 * missing) / perSecond } }
      if (missing + Object.keys(running).length > 1e-6) return { result: 'busy' }
      return { change: changeOf({ failed, running: { ...running, [id]: maxDuration } }), result: { id } }
    }
    return (await updateState(this.#networks, network, decide)).result
  }

  /** Gives a slot back. Rejects as `StateCollection`. */
  async end(network: string, id: string, hasFailed: boolean): Promise<void> {
    await updateState(this.#networks, network, record => {
      const { failed, running } = this.#read(record)
      const { [id]: _, ...others } = running
      const logins = { failed: failed + (hasFailed ? 1 : 0), running: others }
      const isNeeded = logins.failed > 0 || Object.keys(others).length > 0
      return { change: isNeeded ? changeOf(logins) : 'delete', result: undefined }
    })
  }

  /** As it is now. */
  #read({ value, age }: StateRecord): StoredLogins {
    if (value === undefined) return { failed: 0, running: {} }
    const { failed, running } = JSON.parse(value) as StoredLogins
    const left = Object.entries(running).map(([id, time]) => [id, time - age] as const)
    return {
      failed: Math.max(0, failed - (age * this.#rate.perSecond) / 1000),
      running: Object.fromEntries(left.filter(([, time]) => time > 0)),
    }
  }
}

function changeOf(logins: StoredLogins): { value: string; owner: string } {
  return { value: JSON.stringify(logins), owner: '' }
}
