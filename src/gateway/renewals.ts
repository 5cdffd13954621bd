import type { Tickets } from '../access/tickets.js'
import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { LiveConnections } from '../transports/live-connections.js'
import type { WorkerGroup } from '../workers/primary-process.js'

/**
 * Gives connections of other worker processes fresh credentials. The identity goes to them as a ticket, which the worker of the connection redeems.
 *
 * @returns renews a connection of another worker; see `LiveConnections.renew`. Rejects with `identity-unavailable` if it may be that of a worker
 *   that does not answer
 */
export function shareRenewals(
  group: WorkerGroup,
  connections: LiveConnections,
  tickets: Tickets,
): (connection: string, identity: Identity) => Promise<boolean> {
  group.onQuestion('renewConnection', async ({ connection, ticket }) => {
    if (!connections.has(connection)) return 'absent'
    try {
      return connections.renew(connection, await tickets.redeem(ticket)) ? 'renewed' : 'absent'
    } catch (error) {
      if (GatewayError.from(error).reason === 'identity-refused') return 'refused'
      throw error
    }
  })
  return async (connection, identity) => {
    // The connection of an anonymous client does not expire.
    if (identity.user === undefined) return false
    const { ticket } = await tickets.issue(identity)
    const { answers, missing } = await group.askOthers('renewConnection', { connection, ticket })
    // Unused tickets of the user count.
    if (answers.every(answer => answer === 'absent')) await tickets.redeem(ticket).catch(() => {})
    if (answers.includes('refused')) {
      throw new GatewayError('identity-refused', { hint: 'the connection is of another user' })
    }
    const isRenewed = answers.includes('renewed')
    if (!isRenewed && missing > 0) throw new GatewayError('identity-unavailable', { hint: 'a worker does not answer' })
    return isRenewed
  }
}
