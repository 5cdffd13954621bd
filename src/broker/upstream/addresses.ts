import { StartError } from '../../base/start-error.js'
import { parseBrokerUrl } from '../../config/forms.js'
import type { UpstreamConfig } from '../../config/schema.js'

export type Address =
  | { readonly kind: 'tcp' | 'tls'; readonly name: string; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly name: string; readonly path: string }

/**
 * Parses `mqtt://host[:1883]`, `mqtts://host[:8883]` (an IPv6 host in brackets) or `unix:/path`.
 *
 * @throws {StartError} for anything else
 */
export function parseAddress(url: string): Address {
  const parsed = parseBrokerUrl(url)
  // The URL is not in the message, because it may have a password.
  if (!parsed) throw new StartError('A broker address must be mqtt://host:port, mqtts://host:port or unix:/path')
  const { protocol, host, port } = parsed
  if (protocol === 'unix') return { kind: 'unix', name: url, path: host }
  const name = `${protocol}://${host.includes(':') ? `[${host}]` : host}:${port}`
  return { kind: protocol === 'mqtt' ? 'tcp' : 'tls', name, host, port }
}

/** A failed address is tried last for this long, in milliseconds. */
const coolDown = 10_000

interface State {
  readonly address: Address
  connections: number
  failedAt: number
}

/** Order of the addresses for a connection. */
export class AddressBook {
  readonly #addresses: readonly Address[]
  readonly #states: readonly State[]
  readonly #balance: UpstreamConfig['balance']
  readonly #now: () => number
  #next = 0

  /** @param now a clock in milliseconds */
  constructor(addresses: readonly Address[], balance: UpstreamConfig['balance'], now: () => number = Date.now) {
    this.#addresses = addresses
    this.#states = addresses.map(address => ({ address, connections: 0, failedAt: Number.NEGATIVE_INFINITY }))
    this.#balance = balance
    this.#now = now
  }

  /** All addresses in the order to try: by `balance`, with those that failed in the last 10 s at the end. */
  order(): readonly Address[] {
    if (this.#addresses.length === 1) return this.#addresses
    const states = [...this.#states]
    if (this.#balance === 'round-robin') states.push(...states.splice(0, this.#next++ % states.length))
    if (this.#balance === 'least-connections') states.sort((a, b) => a.connections - b.connections)
    const failed = (state: State): number => (this.#now() - state.failedAt < coolDown ? 1 : 0)
    return states.sort((a, b) => failed(a) - failed(b)).map(state => state.address)
  }

  failed(address: Address): void {
    const state = this.#stateOf(address)
    if (state) state.failedAt = this.#now()
  }

  /** Counts a connection; the returned function counts its end. */
  connected(address: Address): () => void {
    const state = this.#stateOf(address)
    if (!state) return () => {}
    state.failedAt = Number.NEGATIVE_INFINITY
    state.connections++
    return () => {
      state.connections--
    }
  }

  #stateOf(address: Address): State | undefined {
    return this.#states.find(state => state.address === address)
  }
}
