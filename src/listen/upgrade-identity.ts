import type { Authenticator } from '../access/authenticator.js'
import { attemptOf, type CredentialPlaces } from '../http/request-identity.js'
import type { UpgradeIdentity } from '../http/upgrade-route.js'

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
