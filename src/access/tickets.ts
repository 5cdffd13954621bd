import { createHash, randomBytes } from 'node:crypto'
import { GatewayError } from '../base/errors.js'
import { type Identity, identityOf, type Revocation } from '../base/identity.js'
import { type SharedState, type StateCollection, StateFullError } from '../storage/shared-state.js'
import { isExpired } from './expiry.js'

export interface TicketsOptions {
  /** Lifetime of a ticket, in milliseconds. */
  readonly expires: number
  /** Unused tickets. */
  readonly max: number
  /** Where they are stored. */
  readonly state: SharedState
  /** The revocation of a user's credential; `undefined` if that is no longer valid. */
  readonly revocationOf?: ((user: string, credential: string) => Revocation | undefined) | undefined
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

/** What is stored of an identity. */
interface StoredIdentity extends Pick<Identity, 'roles' | 'claims' | 'rules' | 'expires'> {
  readonly user: string
  /** `Revocation.credential` */
  readonly credential: string | undefined
}

const ticketForm = /^[A-Za-z0-9_-]{43}$/

/** Unused tickets of one user; a further one evicts the user's oldest. */
const maxPerUser = 100

/** Bytes of all unused tickets; one user has half of them at most. */
const maxBytes = 32 * 1024 ** 2

/** Anonymous clients get no ticket: one passed on to others could not be revoked. */
const needsUser = 'a ticket needs an authenticated user'
const isInvalid = 'the ticket was used already, or has expired'

/**
 * Single-use tickets for clients that cannot send headers: `EventSource` and `WebSocket` of a browser. Only their hashes are stored, so
 * that neither the time of a look-up nor a memory dump reveals a ticket.
 */
export class Tickets {
  readonly #expires: number
  readonly #now: () => number
  readonly #revocationOf: TicketsOptions['revocationOf']
  /** By hash. */
  readonly #unused: StateCollection

  constructor({ expires, max, state, revocationOf, now = Date.now }: TicketsOptions) {
    this.#expires = expires
    this.#now = now
    this.#revocationOf = revocationOf
    this.#unused = state.collection('tickets', {
      ...{ maxAge: expires, maxEntries: max, maxBytes },
      ...{ maxEntriesPerOwner: maxPerUser, maxBytesPerOwner: maxBytes / 2, whenFull: 'refuse' },
    })
  }

  /**
   * Issues a ticket to an authenticated client.
   *
   * @throws {GatewayError} rejects with `identity-required` for an anonymous one; `too-many-tickets`; `identity-unavailable`
   */
  async issue({ user, roles, claims, rules, expires: until, revocation }: Identity): Promise<Ticket> {
    if (user === undefined) throw new GatewayError('identity-required', { hint: needsUser })
    const ticket = randomBytes(32).toString('base64url')
    const expires = this.#now() + this.#expires
    const stored: StoredIdentity = { user, roles, claims, rules, expires: until, credential: revocation?.credential }
    const change = { value: JSON.stringify(stored), owner: user }
    await this.#unused.set(hashOf(ticket), '', change).catch(cause => {
      throw new GatewayError(cause instanceof StateFullError ? 'too-many-tickets' : 'identity-unavailable', { cause })
    })
    return { ticket, expires }
  }

  /**
   * Redeems a ticket, which is then invalid.
   *
   * @returns the identity of its owner, with the expiry of the original credential
   * @throws {GatewayError} rejects with `identity-refused` for a used, expired or unknown one, or one of a credential that was revoked;
   *   `identity-unavailable`
   */
  async redeem(ticket: string): Promise<Identity> {
    const stored = ticketForm.test(ticket) ? await this.#take(hashOf(ticket)) : undefined
    if (!stored) throw new GatewayError('identity-refused', { hint: isInvalid })
    const { user, credential, ...more } = JSON.parse(stored) as StoredIdentity
    const revocation = credential === undefined ? undefined : this.#revocationOf?.(user, credential)
    const identity = identityOf(user, 'ticket', { ...more, revocation })
    const isRevoked = credential !== undefined && revocation === undefined
    if (isRevoked || isExpired(identity, this.#now())) throw new GatewayError('identity-refused', { hint: isInvalid })
    return identity
  }

  /** Gets an entry and deletes it; `undefined` if there is none, or another request was faster. */
  async #take(hash: string): Promise<string | undefined> {
    try {
      const { value, version } = await this.#unused.get(hash)
      if (value === undefined) return undefined
      return (await this.#unused.set(hash, version, undefined)) === undefined ? undefined : value
    } catch (cause) {
      throw new GatewayError('identity-unavailable', { cause })
    }
  }
}

function hashOf(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64')
}
