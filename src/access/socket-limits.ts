import { FairQuota } from '../base/fair-quota.js'
import { noOtherCounts, type OtherCounts } from '../base/other-counts.js'
import { compileAddresses, normalizeAddress, unixAddress } from './addresses.js'
import { networkOf } from './limits.js'

export interface SocketLimitsOptions {
  /** Sockets of one address (IPv6: a /64). */
  readonly perAddress: number
  /** Sockets of all addresses; one address has at most half of them, see `FairQuota`. Default: no limit. */
  readonly max?: number
  /** Addresses that may have any number up to `max`, as their sockets belong to many clients. */
  readonly trustedProxies: readonly string[]
  /** Sockets of other processes, by network: they count for `perAddress`, and not for `max`, as each process has its own descriptors. */
  readonly others?: OtherCounts | undefined
}

/** The bound that a further socket would exceed. */
export type SocketRefusal = 'too-many-connections' | 'too-many-from-address'

/**
 * Limits open sockets by address, whether anything is sent on them or not. `max` keeps them within the file descriptors of the process,
 * which the journal needs as well.
 */
export class SocketLimits {
  #perAddress: number
  #isProxy: (address: string) => boolean
  readonly #open: FairQuota
  readonly #others: OtherCounts

  /** @throws {TypeError} naming the first invalid entry of `trustedProxies` */
  constructor({ perAddress, max = Number.MAX_SAFE_INTEGER, trustedProxies, others }: SocketLimitsOptions) {
    this.#others = others ?? noOtherCounts
    this.#perAddress = perAddress
    this.#isProxy = compileAddresses(trustedProxies)
    this.#open = new FairQuota(max)
  }

  /**
   * Applies other bounds. Open sockets stay, also beyond them, and count as they did.
   *
   * @throws {TypeError} naming the first invalid entry of `trustedProxies`
   */
  configure({ perAddress, trustedProxies }: Pick<SocketLimitsOptions, 'perAddress' | 'trustedProxies'>): void {
    this.#isProxy = compileAddresses(trustedProxies)
    this.#perAddress = perAddress
  }

  /** Addresses with a socket. */
  get addresses(): number {
    return this.#open.keys - (this.#open.of(uncounted) > 0 ? 1 : 0)
  }

  /**
   * Counts a new socket.
   *
   * @param remoteAddress `undefined` for one on a Unix socket
   * @returns the network to `release` when the socket is closed, or the exceeded bound
   */
  admit(remoteAddress: string | undefined): { readonly network: string } | { readonly refusal: SocketRefusal } {
    const address = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    const isCounted = address !== unixAddress && !this.#isProxy(address)
    const network = isCounted ? networkOf(address) : uncounted
    if (isCounted && this.#open.of(network) + this.#others.of(network) >= this.#perAddress) {
      return { refusal: 'too-many-from-address' }
    }
    const exceeded = isCounted ? this.#open.exceededBy(network, 1) : this.#isFull && 'all'
    if (exceeded) return { refusal: exceeded === 'own' ? 'too-many-from-address' : 'too-many-connections' }
    this.#open.take(network, 1)
    this.#others.set(network, this.#open.of(network))
    return { network }
  }

  /** Call once for each socket that was admitted. */
  release(network: string): void {
    this.#open.giveBack(network, 1)
    this.#others.set(network, this.#open.of(network))
  }

  get #isFull(): boolean {
    return this.#open.total >= this.#open.max
  }
}

/** The network of sockets without a limit per address. */
const uncounted = ''
