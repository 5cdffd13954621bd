import { createHash, randomBytes } from 'node:crypto'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import { isOver } from './expiry.js'

export interface TicketsOptions {
  /** How long a ticket can be used, in milliseconds. */
  readonly expires: number
  /** How many may wait to be used. */
  readonly max: number
  /** The time in milliseconds since 1970. Default: the clock's. */
  readonly now?: () => number
}

/** What stands for somebody, once. */
export interface Ticket {
  /** 43 characters of base64url: 256 bits of chance. */
  readonly ticket: string
  /** Until when it can be used, in milliseconds since 1970. */
  readonly expires: number
}

interface Waiting {
  readonly identity: Identity & { readonly user: string }
  readonly expires: number
}

const ticketForm = /^[A-Za-z0-9_-]{43}$/

/** One user's tickets that wait; with a further one the oldest becomes void, so that no user takes the place of others. */
const maxPerUser = 100

/** Otherwise one without a name could hand on what nobody can take back. */
const nobody = 'nobody gets a ticket without saying who they are'

/**
 * Single-use tickets, for what cannot send a header: `EventSource` and `WebSocket` of a browser. Only their hashes are
 * kept, so that the time of a look-up tells nothing about a ticket, and a dump of the memory is of no use.
 */
export class Tickets {
  readonly #options: Required<TicketsOptions>
  /** By hash, in the order in which they expire. */
  readonly #waiting = new Map<string, Waiting>()
  /** The hashes of each user's tickets, the oldest first. */
  readonly #perUser = new Map<string, Set<string>>()

  constructor({ now = Date.now, ...options }: TicketsOptions) {
    this.#options = { ...options, now }
  }

  /** How many wait to be used. */
  get size(): number {
    this.#forgetExpired()
    return this.#waiting.size
  }

  /**
   * Makes a ticket for somebody who is known.
   *
   * @throws {Ending} `identity-required` for somebody who is not; `too-many-tickets`
   */
  issue(identity: Identity): Ticket {
    const { user } = identity
    if (user === undefined) throw new GatewayError('identity-required', { hint: nobody })
    this.#forgetExpired()
    const own = this.#perUser.get(user) ?? new Set()
    const [oldest] = own
    if (own.size >= maxPerUser && oldest !== undefined) this.#forget(oldest)
    if (this.#waiting.size >= this.#options.max) throw new GatewayError('too-many-tickets')

    const ticket = randomBytes(32).toString('base64url')
    const expires = this.#options.now() + this.#options.expires
    const hash = hashOf(ticket)
    this.#waiting.set(hash, { identity: { ...identity, user }, expires })
    this.#perUser.set(user, own.add(hash))
    return { ticket, expires }
  }

  /**
   * Takes a ticket, which then is worth nothing.
   *
   * @returns who it stands for, for as long as what they proved it with holds
   * @throws {Ending} `identity-refused` for one that was used, has expired, or never was
   */
  redeem(ticket: string): Identity {
    const hash = ticketForm.test(ticket) ? hashOf(ticket) : ''
    const found = this.#waiting.get(hash)
    this.#forget(hash)
    const now = this.#options.now()
    if (found === undefined || found.expires <= now || isOver(found.identity, now)) {
      throw new GatewayError('identity-refused', { hint: 'the ticket was used already, or has expired' })
    }
    return { ...found.identity, source: 'ticket' }
  }

  #forgetExpired(): void {
    const now = this.#options.now()
    for (const [hash, { expires }] of this.#waiting) {
      if (expires > now) return
      this.#forget(hash)
    }
  }

  #forget(hash: string): void {
    const waiting = this.#waiting.get(hash)
    if (waiting === undefined) return
    this.#waiting.delete(hash)
    const { user } = waiting.identity
    const own = this.#perUser.get(user)
    own?.delete(hash)
    if (own?.size === 0) this.#perUser.delete(user)
  }
}

function hashOf(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64')
}
