import { isIPv6 } from 'node:net'
import { GatewayError } from '../base/errors.js'
import { normalizeAddress, unixAddress } from './addresses.js'
import { RateLimits } from './rate-limits.js'

/** How many connections there may be at once, and how many new ones per second. */
export interface ConnectionLimitsOptions {
  readonly connections: number
  readonly connectionsPerAddress: number
  /** New ones from one address, on average. Default: any number. */
  readonly upgradesPerSecond?: number | 'off'
  /** How many of them may come at once. */
  readonly upgradesBurst?: number
  readonly now?: () => number
}

/**
 * Counts the connections that are open, in all and per address, and those that come. What it remembers is bounded by
 * what is open, and by what `RateLimits` keeps.
 */
export class ConnectionLimits {
  readonly #options: ConnectionLimitsOptions
  readonly #perAddress = new Map<string, number>()
  readonly #rate: RateLimits | undefined
  #open = 0

  constructor(options: ConnectionLimitsOptions) {
    this.#options = options
    const { upgradesPerSecond = 'off', upgradesBurst = 1, now } = options
    if (upgradesPerSecond === 'off') return
    this.#rate = new RateLimits({ perSecond: upgradesPerSecond, burst: upgradesBurst, ...(now && { now }) })
  }

  /** Connections that were admitted and not released. */
  get open(): number {
    return this.#open
  }

  /**
   * Connections that one address may have now: not more than are left for all others, so that ten addresses with all that they may have
   * keep nobody out. Not where one address may have all of them: then it stands for many.
   */
  get #most(): number {
    const { connections, connectionsPerAddress } = this.#options
    if (connectionsPerAddress >= connections) return connectionsPerAddress
    return Math.min(connectionsPerAddress, Math.max(leastPerAddress, connections - this.#open - 1))
  }

  /** Different addresses (IPv6: /64 networks) among them. */
  get addresses(): number {
    return this.#perAddress.size
  }

  /**
   * Admits one new connection. One that is refused for their number counts towards the rate: somebody who keeps trying is
   * told so.
   *
   * @returns what releases it; calling it again does nothing
   * @throws {Ending} `connecting-too-fast`, and as `hold`
   */
  admit(address: string): () => void {
    const key = networkOf(address)
    const wait = key === unixAddress ? 0 : (this.#rate?.take(key) ?? 0)
    if (wait > 0) throw new GatewayError('connecting-too-fast', { retryAfter: Math.ceil(wait / 1000) })
    return this.hold(address)
  }

  /**
   * Counts one that is open, however fast they come.
   *
   * An IPv6 address counts as its /64, which is what one customer has. Peers on a Unix socket are a reverse proxy's
   * connections as a rule, so they count in all but not as one address.
   *
   * @returns what releases it; calling it again does nothing
   * @throws {Ending} `too-many-connections` or `too-many-from-address`
   */
  hold(address: string): () => void {
    const key = networkOf(address)
    if (this.#open >= this.#options.connections) throw new GatewayError('too-many-connections')
    const count = this.#perAddress.get(key) ?? 0
    if (key !== unixAddress && count >= this.#most) throw new GatewayError('too-many-from-address')
    this.#open += 1
    this.#perAddress.set(key, count + 1)

    let released = false
    return () => {
      if (released) return
      released = true
      this.#open -= 1
      const left = (this.#perAddress.get(key) ?? 1) - 1
      if (left === 0) this.#perAddress.delete(key)
      else this.#perAddress.set(key, left)
    }
  }
}

/** The key by which clients share what is bounded for all: their user, or else their network. */
export function accountOf(user: string | undefined, address: string): string {
  return user === undefined ? `address ${networkOf(address)}` : `user ${user}`
}

/** Connections that one address may have, however few are left for all. */
const leastPerAddress = 16

/** What one customer holds: an IPv4 address, or the first four groups of an IPv6 address. */
export function networkOf(address: string): string {
  const normal = normalizeAddress(address)
  if (!normal.includes(':') || !isIPv6(normal)) return normal
  const [head = '', tail = ''] = normal.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  // A dotted IPv4 ending stands for two groups.
  const given = left.length + right.length + (right.at(-1)?.includes('.') ? 1 : 0)
  const gap = normal.includes('::') ? Array<string>(8 - given).fill('0') : []
  return `${[...left, ...gap, ...right].slice(0, 4).join(':')}::/64`
}
