import { createHash, randomBytes } from 'node:crypto'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import { isExpired } from './expiry.js'

export interface TicketsOptions {
  /** Lifetime of a ticket, in milliseconds. */
  readonly expires: number
  /** Unused tickets. */
  readonly max: number
  /** Milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number
}

/** A ticket that can be used once. */
export interface Ticket {
  /** 256 random bits: 43 characters of base64url. */
  readonly ticket: string
  /** Milliseconds since 1970. */
  readonly expires: number
}

interface UnusedTicket {
  readonly identity: Identity & { readonly user: string }
  readonly expires: number
}

const ticketForm = /^[A-Za-z0-9_-]{43}$/

/** Unused tickets of one user; a further one evicts the user's oldest. */
const maxPerUser = 100

/** Anonymous clients get no ticket: one passed on to others could not be revoked. */
const needsUser = 'a ticket needs an authenticated user'

/**
 * Single-use tickets for clients that cannot send headers: `EventSource` and `WebSocket` of a browser. Only their hashes are stored, so
 * that neither the time of a look-up nor a memory dump reveals a ticket.
 */
export class Tickets {
  readonly #options: Required<TicketsOptions>
  /** By hash, in the order of expiry. */
  readonly #unused = new Map<string, UnusedTicket>()
  /** The hashes of each user's tickets, oldest first. */
  readonly #perUser = new Map<string, Set<string>>()

  constructor({ now = Date.now, ...options }: TicketsOptions) {
    this.#options = { ...options, now }
  }

  /** How many wait to be used. */
  get size(): number {
    this.#removeExpired()
    return this.#unused.size
  }

  /**
   * Issues a ticket to an authenticated client.
   *
   * @throws {GatewayError} `identity-required` for an anonymous one; `too-many-tickets`
   */
  issue(identity: Identity): Ticket {
    const { user } = identity
    if (user === undefined) throw new GatewayError('identity-required', { hint: needsUser })
    this.#removeExpired()
    const own = this.#perUser.get(user) ?? new Set()
    const [oldest] = own
    if (own.size >= maxPerUser && oldest !== undefined) this.#remove(oldest)
    if (this.#unused.size >= this.#options.max) throw new GatewayError('too-many-tickets')

    const ticket = randomBytes(32).toString('base64url')
    const expires = this.#options.now() + this.#options.expires
    const hash = hashOf(ticket)
    this.#unused.set(hash, { identity: { ...identity, user }, expires })
    this.#perUser.set(user, own.add(hash))
    return { ticket, expires }
  }

  /**
   * Redeems a ticket, which is then invalid.
   *
   * @returns the identity of its owner, with the expiry of the original credential
   * @throws {GatewayError} `identity-refused` for a used, expired or unknown one
   */
  redeem(ticket: string): Identity {
    const hash = ticketForm.test(ticket) ? hashOf(ticket) : ''
    const found = this.#unused.get(hash)
    this.#remove(hash)
    const now = this.#options.now()
    if (found === undefined || found.expires <= now || isExpired(found.identity, now)) {
      throw new GatewayError('identity-refused', { hint: 'the ticket was used already, or has expired' })
    }
    return { ...found.identity, source: 'ticket' }
  }

  #removeExpired(): void {
    const now = this.#options.now()
    for (const [hash, { expires }] of this.#unused) {
      if (expires > now) return
      this.#remove(hash)
    }
  }

  #remove(hash: string): void {
    const unused = this.#unused.get(hash)
    if (unused === undefined) return
    this.#unused.delete(hash)
    const { user } = unused.identity
    const own = this.#perUser.get(user)
    own?.delete(hash)
    if (own?.size === 0) this.#perUser.delete(user)
  }
}

function hashOf(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64')
}
