import type { Socket } from 'node:net'
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

  /** Whether a new socket may stay; if it may, it counts until it is closed. */
  admit(socket: Socket): boolean {
    const { remoteAddress } = socket
    const address = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    if (address === unixAddress || this.#isProxy(address)) return true
    const key = networkOf(address)
    const count = this.#open.get(key) ?? 0
    if (count >= this.#perAddress) return false
    this.#open.set(key, count + 1)
    socket.once('close', () => this.#release(key))
    return true
  }

  #release(key: string): void {
    const left = (this.#open.get(key) ?? 1) - 1
    if (left === 0) this.#open.delete(key)
    else this.#open.set(key, left)
  }
}
