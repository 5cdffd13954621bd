import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'

/** Whom a client id belongs to. */
export type Owner = string

/** Whom what the program itself connects as belongs to. */
export const internalOwner: Owner = 'mqway'

/** Whom what belongs to nobody in particular belongs to. */
export const anonymousOwner = 'anonymous'

/** A user, or everybody without a name together. */
export function ownerOf({ user }: Identity): Owner {
  return user === undefined ? anonymousOwner : `user:${user}`
}

interface Claim {
  readonly owner: Owner
  /** What ends each of the connections. */
  readonly leaves: Set<() => Promise<void>>
  /** Resolves when whoever had it before is gone, and their session with them. */
  readonly vacated: Promise<void>
}

/** What clientIds ask of sessions. */
export interface OwnedSessions {
  /** Whose session is kept under a client id; `undefined` where there is none, or nobody asked then. */
  ownerOf(clientId: string): Owner | undefined
  /** Ends a session, with all that is in it. */
  end(clientId: string): Promise<void>
}

/**
 * Whom client ids belong to: to the user whose connection has one, or whose session is kept under it. Somebody else does
 * not get it, and so neither the session nor the place of who is connected [MQTT-3.1.4-2].
 *
 * What is anonymous gives way to whoever has a name: otherwise anybody could keep a user out by connecting with their
 * client id first. It ends with its session, so that the user gets nothing that somebody else has put there.
 */
export class ClientIdRegistry {
  readonly #claims = new Map<string, Claim>()
  readonly #sessions: OwnedSessions

  constructor(sessions: OwnedSessions) {
    this.#sessions = sessions
  }

  /** The owner of the connections that have a client id. */
  of(clientId: string): Owner | undefined {
    return this.#claims.get(clientId)?.owner
  }

  /**
   * Gives a client id to one connection.
   *
   * @param leave ends the connection, when the client id goes to somebody else; resolves when nothing more comes of it
   * @returns what gives it back; calling it again does nothing
   * @throws {Ending} `client-id-taken`
   */
  async claim(clientId: string, owner: Owner, leave: () => Promise<void>): Promise<() => void> {
    const claim = this.#claimOf(clientId, owner)
    claim.leaves.add(leave)
    this.#claims.set(clientId, claim)
    const release = (): void => {
      claim.leaves.delete(leave)
      if (claim.leaves.size === 0 && this.#claims.get(clientId) === claim) this.#claims.delete(clientId)
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
    if (holder === owner) return { owner, leaves: new Set(), vacated: Promise.resolve() }
    if (holder !== anonymousOwner) throw new GatewayError('client-id-taken')
    return { owner, leaves: new Set(), vacated: this.#vacate(clientId, claim) }
  }

  async #vacate(clientId: string, claim: Claim | undefined): Promise<void> {
    await claim?.vacated
    await Promise.all([...(claim?.leaves ?? [])].map(leave => leave()))
    if (this.#sessions.ownerOf(clientId) === anonymousOwner) await this.#sessions.end(clientId)
  }
}
