import { randomUUID } from 'node:crypto'
import { type Identity, isUserName } from '../base/identity.js'

/**
 * The name of a device, under which it is present and its receipts are kept: what its identity says (the claim `device`,
 * else the user), else what it calls itself, else a new name that it is to be told.
 *
 * @param named what it calls itself: a user name (`isUserName`), never believed where there is an identity
 */
export function deviceOf({ user, claims }: Identity, named: string | undefined): string {
  const claimed = claims['device']
  if (typeof claimed === 'string' && isUserName(claimed)) return claimed
  return user ?? named ?? randomUUID()
}
