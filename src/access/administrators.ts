import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import { compileAddresses } from './addresses.js'
import type { Client } from './client-address.js'
import type { TopicRules } from './topic-rules.js'

/** Requires that a client may administer the gateway. @throws {GatewayError} `admin-required` */
export type RequireAdmin = (client: Client, identity: Identity) => void

export interface AdministratorsOptions {
  readonly rules: Pick<TopicRules, 'isAdmin'>
  /** Whether the configuration opens the gateway to other machines, by `access` or `anonymous`. */
  readonly isOpen: boolean
}

const hint = 'needs a rule with admin: true'

/**
 * Where the gateway serves loopback only, each client on this machine is an administrator; otherwise only users to whom a rule gives `admin`. A
 * request that an untrusted proxy has forwarded is not from this machine.
 */
export function compileAdministrators({ rules, isOpen }: AdministratorsOptions): RequireAdmin {
  const isLocal = compileAddresses(['loopback', 'unix'])
  return ({ address, viaUnknownProxy }, identity) => {
    const isAdmin = isOpen ? rules.isAdmin(identity) : isLocal(address) && !viaUnknownProxy
    if (!isAdmin) throw new GatewayError('admin-required', { hint })
  }
}
