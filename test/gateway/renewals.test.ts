import { expect, it } from 'vitest'
import { Tickets } from '../../src/access/tickets.js'
import { identityOf } from '../../src/base/identity.js'
import { shareRenewals } from '../../src/gateway/renewals.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import { LiveConnections } from '../../src/transports/live-connections.js'
import type { WorkerGroup } from '../../src/workers/primary-process.js'

const alice = identityOf('alice', 'token', { roles: [] })

/** A worker, of whose two others `missing` do not answer and the rest do not have a connection. */
function makeWorker(missing: number) {
  const group: Pick<WorkerGroup, 'askOthers' | 'onQuestion'> = {
    onQuestion: () => {},
    askOthers: async () => ({ answers: Array(2 - missing).fill('absent') as never[], missing }),
  }
  const tickets = new Tickets({ expires: 1000, max: 1, state: new MemoryState() })
  const renew = shareRenewals(group as WorkerGroup, new LiveConnections(), tickets)
  return { tickets, renew: () => renew('c', alice) }
}

it('a connection is said to be absent only if all workers have answered', async () => {
  expect(await makeWorker(0).renew()).toBe(false)
  await expect(makeWorker(1).renew()).rejects.toMatchObject({ reason: 'identity-unavailable' })
})

it('a connection that is absent leaves no unused ticket', async () => {
  const { tickets, renew } = makeWorker(0)
  await renew()
  await expect(tickets.issue(alice)).resolves.toBeDefined()
})
