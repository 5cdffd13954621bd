import { Ending } from '../endings.js'
import type { Identity } from '../identity.js'

/** Whom a client id belongs to. */
export type Owner = string

/** Whom what the program itself connects as belongs to. */
export const ownOwner: Owner = 'mqway'

/** A user, or everybody without a name together. */
export function ownerOf({ user }: Identity): Owner {
  return user === undefined ? 'anonymous' : `user:${user}`
}

interface Claim {
  readonly owner: Owner
  connections: number
}

/**
 * Whom client ids belong to: to the user whose connection has one, or whose session is kept under it. Somebody else does
 * not get it, and so neither the session nor the place of who is connected [MQTT-3.1.4-2].
 */
export class Owners {
  readonly #claims = new Map<string, Claim>()
  readonly #ownerOfSession: (clientId: string) => Owner | undefined

  /** @param ownerOfSession whose session is kept under a client id; `undefined` where there is none, or nobody asked then */
  constructor(ownerOfSession: (clientId: string) => Owner | undefined) {
    this.#ownerOfSession = ownerOfSession
  }

  /** The owner of the connections that have a client id. */
  of(clientId: string): Owner | undefined {
    return this.#claims.get(clientId)?.owner
  }

  /**
   * Gives a client id to one connection.
   *
   * @returns what gives it back; calling it again does nothing
   * @throws {Ending} `client-id-taken`
   */
  claim(clientId: string, owner: Owner): () => void {
    const holder = this.of(clientId) ?? this.#ownerOfSession(clientId) ?? owner
    if (holder !== owner) throw new Ending('client-id-taken')
    const claim = this.#claims.get(clientId) ?? { owner, connections: 0 }
    claim.connections++
    this.#claims.set(clientId, claim)

    let released = false
    return () => {
      if (released) return
      released = true
      if (--claim.connections === 0) this.#claims.delete(clientId)
    }
  }
}
