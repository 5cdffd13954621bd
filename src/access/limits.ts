import { isIPv6 } from 'node:net'
import { Ending } from '../endings.js'
import { normalizeAddress, unixAddress } from './addresses.js'

/** How many connections there may be at once. */
export interface ConnectionLimitsOptions {
  readonly connections: number
  readonly connectionsPerAddress: number
}

/** Counts the connections that are open, in all and per address. What it remembers is bounded by what is open. */
export class ConnectionLimits {
  readonly #options: ConnectionLimitsOptions
  readonly #perAddress = new Map<string, number>()
  #open = 0

  constructor(options: ConnectionLimitsOptions) {
    this.#options = options
  }

  /** Connections that were admitted and not released. */
  get open(): number {
    return this.#open
  }

  /** Different addresses (IPv6: /64 networks) among them. */
  get addresses(): number {
    return this.#perAddress.size
  }

  /**
   * Admits one connection.
   *
   * An IPv6 address counts as its /64, which is what one customer has. Peers on a Unix socket are a reverse proxy's
   * connections as a rule, so they count in all but not as one address.
   *
   * @returns what releases it; calling it again does nothing
   * @throws {Ending} `too-many-connections` or `too-many-from-address`
   */
  admit(address: string): () => void {
    if (this.#open >= this.#options.connections) throw new Ending('too-many-connections')
    const key = networkOf(address)
    const count = this.#perAddress.get(key) ?? 0
    if (key !== unixAddress && count >= this.#options.connectionsPerAddress) throw new Ending('too-many-from-address')
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

/** What one customer holds: an IPv4 address, or the first four groups of an IPv6 address. */
export function networkOf(address: string): string {
  const normal = normalizeAddress(address)
  if (!isIPv6(normal)) return normal
  const [head = '', tail = ''] = normal.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  // A dotted IPv4 ending stands for two groups.
  const given = left.length + right.length + (right.at(-1)?.includes('.') ? 1 : 0)
  const gap = normal.includes('::') ? Array<string>(8 - given).fill('0') : []
  return `${[...left, ...gap, ...right].slice(0, 4).join(':')}::/64`
}
