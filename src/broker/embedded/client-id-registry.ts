import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'

/** Owner of a client id. */
export type Owner = string

/** The gateway itself. */
export const internalOwner: Owner = 'mqway'

/** All anonymous clients together. */
export const anonymousOwner = 'anonymous'

/** The owner for an identity: its user, or `anonymousOwner`. */
export function ownerOf({ user }: Identity): Owner {
  return user === undefined ? anonymousOwner : `user:${user}`
}

interface Claim {
  readonly owner: Owner
  /** Closes each of its connections. */
  readonly closers: Set<() => Promise<void>>
  /** Resolves when the former owner's connections and session are gone. */
  readonly vacated: Promise<void>
}

/** Sessions, by client id. */
export interface OwnedSessions {
  /** Owner of a client id's session; `undefined` without a session, or without access control when it was created. */
  ownerOf(clientId: string): Owner | undefined
  /** Removes a session with its queue. */
  end(clientId: string): Promise<void>
}

/**
 * Owners of client ids: the user whose connection or session has one. No other user may take over the session or the connection
 * [MQTT-3.1.4-2].
 *
 * An anonymous client loses its client id to a user: otherwise it could lock the user out by connecting first. Its session ends, so that
 * the user gets none of its messages.
 */
export class ClientIdRegistry {
  readonly #claims = new Map<string, Claim>()
  readonly #sessions: OwnedSessions

  constructor(sessions: OwnedSessions) {
    this.#sessions = sessions
  }

  /** Owner of the connections with a client id. */
  of(clientId: string): Owner | undefined {
    return this.#claims.get(clientId)?.owner
  }

  /**
   * Claims a client id for one connection.
   *
   * @param close closes the connection when the client id goes to another owner; resolves when it is gone
   * @returns releases the claim; idempotent
   * @throws {GatewayError} `client-id-taken`
   */
  async claim(clientId: string, owner: Owner, close: () => Promise<void>): Promise<() => void> {
    const claim = this.#claimOf(clientId, owner)
    claim.closers.add(close)
    this.#claims.set(clientId, claim)
    const release = (): void => {
      claim.closers.delete(close)
      if (claim.closers.size === 0 && this.#claims.get(clientId) === claim) this.#claims.delete(clientId)
    }
    try {
      await claim.vacated
      return release
    } catch (error) {
      release()
      throw error
    }
  }

  #claimOf(clientId: string, owner: Owner): Claim {
    const claim = this.#claims.get(clientId)
    if (claim?.owner === owner) return claim
    const sessionOwner = this.#sessions.ownerOf(clientId)
    const holder = claim?.owner ?? sessionOwner ?? owner
    if (holder === owner) return { owner, closers: new Set(), vacated: Promise.resolve() }
    if (holder !== anonymousOwner) throw new GatewayError('client-id-taken')
    return { owner, closers: new Set(), vacated: this.#vacate(clientId, claim) }
  }

  async #vacate(clientId: string, claim: Claim | undefined): Promise<void> {
    await claim?.vacated
    await Promise.all([...(claim?.closers ?? [])].map(close => close()))
    if (this.#sessions.ownerOf(clientId) === anonymousOwner) await this.#sessions.end(clientId)
  }
}
