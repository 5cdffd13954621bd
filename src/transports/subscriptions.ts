import { randomUUID } from 'node:crypto'
import { accountOf } from '../access/limits.js'
import type { Permissions } from '../access/topic-rules.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import { type Identity, isUserName } from '../base/identity.js'
import type { Caller } from '../http/api-gate.js'
import type { CloseReason } from '../hub/event-sink.js'
import type { TransportContext } from './transport-context.js'

/*
 * Shared by all transports: permission, quotas, device and end of a subscription.
 */

/**
 * Requires the permission to subscribe to all of `filters`.
 *
 * @throws {GatewayError} `topic-refused`, with the first filter that is not permitted
 */
export function authorizeSubscribe({ maySubscribe }: Permissions, filters: readonly string[]): void {
  const refused = filters.find(filter => !maySubscribe(filter))
  if (refused !== undefined) throw new GatewayError('topic-refused', { hint: refused })
}

/**
 * Counts an open request and its filters.
 *
 * @returns releases both; idempotent
 * @throws {GatewayError} as `ApiGate.hold`, and `filters-too-many`
 */
export function holdSubscriber(
  { gate, push }: Pick<TransportContext, 'gate' | 'push'>,
  caller: Caller,
  filters: readonly string[],
): () => void {
  const { client, identity } = caller
  const held = push.filterQuota.hold(accountOf(identity.user, client.address), filters)
  try {
    const release = gate.hold(caller)
    return () => {
      release()
      held.release()
    }
  } catch (error) {
    held.release()
    throw error
  }
}

/**
 * The device name, for presence and receipts: the claim `device`, else the user, else the name that the client gives, else a new one, which the
 * response has to tell.
 *
 * @param name given by the client: a user name (`isUserName`), ignored if the identity says one
 */
export function deviceOf({ user, claims }: Identity, name: string | undefined): string {
  const claimed = claims['device']
  if (typeof claimed === 'string' && isUserName(claimed)) return claimed
  return user ?? name ?? randomUUID()
}

const reasons: Readonly<Record<CloseReason, ErrorReason>> = {
  'too-slow': 'client-too-slow',
  'journal-unavailable': 'journal-unavailable',
  'shutting-down': 'shutting-down',
  complete: 'complete',
}

/** The error with which a connection ends when the hub has closed its subscription. */
export function hubError(reason: CloseReason): GatewayError {
  return new GatewayError(reasons[reason])
}
