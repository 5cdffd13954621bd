import { FairQuota } from '../base/fair-quota.js'
import { compileAddresses, normalizeAddress, unixAddress } from './addresses.js'
import { networkOf } from './limits.js'

export interface SocketLimitsOptions {
  /** How many one address (IPv6: a /64) may hold. */
  readonly perAddress: number
  /** How many all of them may hold; one address half of that at most, see `FairQuota`. Default: any number. */
  readonly max?: number
  /** Who may hold any number up to `max`: their sockets are other people's. */
  readonly trustedProxies: readonly string[]
}

/** The bound that a further socket would exceed. */
export type SocketRefusal = 'too-many-connections' | 'too-many-from-address'

/**
 * Counts open sockets by address, whatever is or is not sent on them: what counts requests never hears of somebody who
 * opens thousands and sends nothing. `max` keeps them within the file descriptors of the process, which the journal needs as well.
 */
export class SocketLimits {
  readonly #perAddress: number
  readonly #isProxy: (address: string) => boolean
  readonly #open: FairQuota

  /** @throws {TypeError} naming the first entry of `trustedProxies` that is no address */
  constructor({ perAddress, max = Number.MAX_SAFE_INTEGER, trustedProxies }: SocketLimitsOptions) {
    this.#perAddress = perAddress
    this.#isProxy = compileAddresses(trustedProxies)
    this.#open = new FairQuota(max)
  }

  /** Addresses with a socket. */
  get addresses(): number {
    return this.#open.keys - (this.#open.of(uncounted) > 0 ? 1 : 0)
  }

  /**
   * Counts a new socket.
   *
   * @param remoteAddress `undefined` for one on a Unix socket
   * @returns the network to `release` when the socket is closed, or the reason why it may not stay
   */
  admit(remoteAddress: string | undefined): { readonly network: string } | { readonly refusal: SocketRefusal } {
    const address = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    const isCounted = address !== unixAddress && !this.#isProxy(address)
    const network = isCounted ? networkOf(address) : uncounted
    if (isCounted && this.#open.of(network) >= this.#perAddress) return { refusal: 'too-many-from-address' }
    const exceeded = isCounted ? this.#open.exceededBy(network, 1) : this.#isFull && 'all'
    if (exceeded) return { refusal: exceeded === 'own' ? 'too-many-from-address' : 'too-many-connections' }
    this.#open.take(network, 1)
    return { network }
  }

  /** Call once for each socket that was admitted. */
  release(network: string): void {
    this.#open.giveBack(network, 1)
  }

  get #isFull(): boolean {
    return this.#open.total >= this.#open.max
  }
}

/** Stands for the network of those who may hold any number. */
const uncounted = ''
