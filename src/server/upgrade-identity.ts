import type { Authenticator } from '../access/authenticator.js'
import { attemptOf, type CredentialPlaces } from '../http/request-identity.js'
import type { UpgradeIdentity } from '../http/upgrade-route.js'

/**
 * Whom an endpoint lets in: only those with a name, only those whom the gateway lets in at all, or also those of whom
 * another will ask who they are.
 */
export type Wanted = 'user' | 'admitted' | 'anybody'

/** @param places where credentials are looked for */
export function createUpgradeIdentity(
  authenticator: Authenticator,
  places: CredentialPlaces,
  wanted: Wanted,
): UpgradeIdentity {
  return {
    challenge: authenticator.challenge,
    challengeFor: headers => authenticator.challengeFor(headers),
    find: (request, client) => {
      const attempt = attemptOf(request, client, 'websocket', places)
      if (wanted !== 'anybody') return authenticator.authenticate(attempt, { requireUser: wanted === 'user' })
      // Headers that a webhook is to see are something to go by, too; a CONNECT has none of them.
      const presents = attempt.credential !== undefined || attempt.headers !== undefined
      return presents ? authenticator.identify(attempt) : undefined
    },
  }
}
