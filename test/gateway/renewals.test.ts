import { expect, it } from 'vitest'
import { Tickets } from '../../src/access/tickets.js'
import { identityOf } from '../../src/base/identity.js'
import { shareRenewals } from '../../src/gateway/renewals.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import { LiveConnections } from '../../src/transports/live-connections.js'
import type { WorkerGroup } from '../../src/workers/primary-process.js'

const alice = identityOf('alice', 'token', { roles: [] })

/** Renews at a worker, of whose two others `missing` do not answer and the rest do not have the connection. */
function renewWith(missing: number) {
  const group: Pick<WorkerGroup, 'askOthers' | 'onQuestion'> = {
    onQuestion: () => {},
    askOthers: async () => ({ answers: Array(2 - missing).fill('absent') as never[], missing }),
  }
  const tickets = new Tickets({ expires: 1000, max: 9, state: new MemoryState() })
  return shareRenewals(group as WorkerGroup, new LiveConnections(), tickets)('c', alice)
}

it('a connection is said to be absent only if all workers have answered', async () => {
  expect(await renewWith(0)).toBe(false)
  await expect(renewWith(1)).rejects.toMatchObject({ reason: 'identity-unavailable' })
})
