import { isIPv6 } from 'node:net'
import { GatewayError } from '../base/errors.js'
import { noOtherCounts, type OtherCounts } from '../base/other-counts.js'
import { normalizeAddress, unixAddress } from './addresses.js'
import type { ShareLimit } from './limit-exchange.js'
import { type OptionalRate, RateLimits } from './rate-limits.js'

export interface ConnectionBounds {
  readonly connections: number
  readonly connectionsPerAddress: number
  /** New connections per address, on average. Default: no limit. */
  readonly upgradesPerSecond?: number | 'off'
  /** New connections per address at once. */
  readonly upgradesBurst?: number
}

export interface ConnectionLimitsOptions extends ConnectionBounds {
  /** Connections of other processes, by network. */
  readonly others?: OtherCounts | undefined
  /** Shares the rate of new connections. */
  readonly share?: ShareLimit | undefined
  readonly now?: () => number
}

/**
 * Limits open connections, in all and per address, and the rate of new ones per address. Its memory is bounded by the open
 * connections, and by `RateLimits`.
 */
export class ConnectionLimits {
  #bounds: ConnectionBounds
  readonly #perAddress = new Map<string, number>()
  readonly #rate: RateLimits
  readonly #others: OtherCounts
  #open = 0

  constructor(options: ConnectionLimitsOptions) {
    const { others = noOtherCounts, share, now } = options
    this.#bounds = options
    this.#others = others
    this.#rate = new RateLimits({ ...rateOf(options), ...(now && { now }) })
    share?.('upgrades', this.#rate)
  }

  /** Applies other bounds. Open connections stay, also beyond them. */
  configure(bounds: ConnectionBounds): void {
    this.#bounds = bounds
    this.#rate.configure(rateOf(bounds))
  }

  /** Open connections of this process. */
  get open(): number {
    return this.#open
  }

  /**
   * Connections that one address may have now: at most as many as are left for all others, so that a few addresses cannot use up all.
   * Does not apply if one address may have all of them, as that of a proxy.
   */
  get #maxPerAddress(): number {
    const { connections, connectionsPerAddress } = this.#bounds
    if (connectionsPerAddress >= connections) return connectionsPerAddress
    return Math.min(connectionsPerAddress, Math.max(minPerAddress, connections - this.#total - 1))
  }

  get #total(): number {
    return this.#open + this.#others.total
  }

  /** Addresses (IPv6: /64 networks) with an open connection. */
  get addresses(): number {
    return this.#perAddress.size
  }

  /**
   * Admits a new connection. A connection that is refused because of their number counts towards the rate.
   *
   * @returns a function that releases it; idempotent
   * @throws {GatewayError} `connecting-too-fast`, and as `hold`
   */
  admit(address: string): () => void {
    const key = networkOf(address)
    const wait = key === unixAddress ? 0 : this.#rate.take(key)
    if (wait > 0) throw new GatewayError('connecting-too-fast', { retryAfter: Math.ceil(wait / 1000) })
    return this.hold(address)
  }

  /**
   * Counts an open connection, whatever the rate.
   *
   * An IPv6 address counts as its /64, which one customer has. Peers on a Unix socket are usually connections of a reverse proxy: they
   * count in all, but not as one address.
   *
   * @returns a function that releases it; idempotent
   * @throws {GatewayError} `too-many-connections` or `too-many-from-address`
   */
  hold(address: string): () => void {
    const key = networkOf(address)
    if (this.#total >= this.#bounds.connections) throw new GatewayError('too-many-connections')
    const count = this.#perAddress.get(key) ?? 0
    if (key !== unixAddress && count + this.#others.of(key) >= this.#maxPerAddress) {
      throw new GatewayError('too-many-from-address')
    }
    this.#open += 1
    this.#set(key, count + 1)

    let released = false
    return () => {
      if (released) return
      released = true
      this.#open -= 1
      this.#set(key, (this.#perAddress.get(key) ?? 1) - 1)
    }
  }

  #set(key: string, count: number): void {
    if (count === 0) this.#perAddress.delete(key)
    else this.#perAddress.set(key, count)
    this.#others.set(key, count)
  }
}

function rateOf({ upgradesPerSecond = 'off', upgradesBurst = 1 }: ConnectionBounds): OptionalRate {
  return { perSecond: upgradesPerSecond, burst: upgradesBurst }
}

/** The key of a client for shared quotas: its user, or else its network. */
export function accountOf(user: string | undefined, address: string): string {
  return user === undefined ? `address ${networkOf(address)}` : `user ${user}`
}

/** Connections that each address may always have, even if few are left for all. */
const minPerAddress = 16

/** The network of one customer: an IPv4 address, or the /64 of an IPv6 address. */
export function networkOf(address: string): string {
  const normal = normalizeAddress(address)
  if (!normal.includes(':') || !isIPv6(normal)) return normal
  const [head = '', tail = ''] = normal.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  // A dotted IPv4 part at the end counts as two groups.
  const given = left.length + right.length + (right.at(-1)?.includes('.') ? 1 : 0)
  const gap = normal.includes('::') ? Array<string>(8 - given).fill('0') : []
  return `${[...left, ...gap, ...right].slice(0, 4).join(':')}::/64`
}
