import type { IncomingMessage } from 'node:http'
import type { Authenticator } from '../access/authenticator.js'
import type { Client } from '../access/client-address.js'
import type { Identity } from '../identity.js'
import { attemptOf, type CredentialPlaces } from './request-identity.js'

/** Finds out who a WebSocket handshake is from. */
export interface UpgradeIdentity {
  /** What a 401 says in `WWW-Authenticate`; empty for nothing. */
  readonly challenge: string
  /**
   * Who it is; `undefined` where they present nothing and need not: a broker asks with the CONNECT, or lets anybody in.
   *
   * @throws {Ending} as `readCredential` and `Authenticator.authenticate`
   */
  find(request: IncomingMessage, client: Client): Promise<Identity> | undefined
}

/**
 * @param places where credentials are looked for
 * @param requireUser whether only those with a name get in
 */
export function createUpgradeIdentity(
  authenticator: Authenticator,
  places: CredentialPlaces,
  requireUser: boolean,
): UpgradeIdentity {
  return {
    challenge: authenticator.challenge,
    find: (request, client) => {
      const attempt = attemptOf(request, client, 'websocket', places)
      if (requireUser) return authenticator.authenticate(attempt, { requireUser })
      // Headers that a webhook is to see are something to go by, too; a CONNECT has none of them.
      const presents = attempt.credential !== undefined || attempt.headers !== undefined
      return presents ? authenticator.identify(attempt) : undefined
    },
  }
}
