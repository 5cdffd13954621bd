import { compileAddresses, normalizeAddress, unixAddress } from './addresses.js'
import { networkOf } from './limits.js'

export interface SocketLimitsOptions {
  /** How many one address (IPv6: a /64) may hold. */
  readonly perAddress: number
  /** Who may hold any number: their sockets are other people's. */
  readonly trustedProxies: readonly string[]
}

/**
 * Counts open sockets by address, whatever is or is not sent on them: what counts requests never hears of somebody who
 * opens thousands and sends nothing.
 */
export class SocketLimits {
  readonly #perAddress: number
  readonly #isProxy: (address: string) => boolean
  readonly #open = new Map<string, number>()

  /** @throws {TypeError} naming the first entry of `trustedProxies` that is no address */
  constructor({ perAddress, trustedProxies }: SocketLimitsOptions) {
    this.#perAddress = perAddress
    this.#isProxy = compileAddresses(trustedProxies)
  }

  /** Addresses with a socket. */
  get addresses(): number {
    return this.#open.size
  }

  /**
   * Counts a new socket.
   *
   * @param remoteAddress `undefined` for one on a Unix socket
   * @returns what to `release` when it is closed; `undefined` when it may not stay
   */
  admit(remoteAddress: string | undefined): string | undefined {
    const address = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    if (address === unixAddress || this.#isProxy(address)) return uncounted
    const network = networkOf(address)
    const count = this.#open.get(network) ?? 0
    if (count >= this.#perAddress) return undefined
    this.#open.set(network, count + 1)
    return network
  }

  /** Call once for each socket that was admitted. */
  release(network: string): void {
    if (network === uncounted) return
    const left = (this.#open.get(network) ?? 1) - 1
    if (left === 0) this.#open.delete(network)
    else this.#open.set(network, left)
  }
}

/** What stands for the network of those who may hold any number. */
const uncounted = ''
