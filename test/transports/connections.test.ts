import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { identityOf } from '../../src/base/identity.js'
import { registerConnections } from '../../src/transports/connections.js'
import { registerEvents } from '../../src/transports/sse/sse.js'
import { eventually } from '../helpers/wait.js'
import { openSource, type TestSource } from './event-source.js'
import { type Rig, startRig } from './rig.js'

let rig: Rig
beforeEach(async () => {
  rig = await startRig({
    register: (app, options) => {
      registerEvents(app, options)
      registerConnections(app, options)
    },
    config: {
      access: {
        jwt: { secret: '0123456789abcdef0123456789abcdef', audience: 'mqway' },
        rules: [{ to: { role: 'reader' }, subscribe: ['#'] }],
      },
    },
  })
})
afterEach(() => rig.close())

/** A ticket for somebody whose proof ends after so many milliseconds. */
const ticketOf = async (user: string, lasts: number, roles = ['reader']): Promise<string> =>
  (await rig.access.tickets.issue(identityOf(user, 'token', { roles, expires: Date.now() + lasts }))).ticket
const open = async (ticket: string): Promise<{ source: TestSource; connection: string }> => {
  const source = await openSource(`${rig.url}/v1/events?topic=a&ticket=${ticket}`)
  await eventually(() => source.of('welcome').length === 1)
  return { source, connection: String(source.of('welcome')[0]?.['connection']) }
}
const renew = (connection: string, ticket: string): Promise<Response> =>
  fetch(`${rig.url}/v1/connections/${connection}?ticket=${ticket}`, { method: 'POST' })

describe('fresh credentials for a connection', () => {
  it('keep it open beyond those it began with', async () => {
    const { source, connection } = await open(await ticketOf('ada', 2500))
    const other = await open(await ticketOf('ada', 2800))
    expect((await renew(connection, await ticketOf('ada', 60_000))).status).toBe(204)
    await other.source.end()
    expect(source.ended).toBe(false)
    await rig.publish('a', 'still there')
    await source.messages(1)
  })

  it('end it where they permit less than it listens to', async () => {
    const { source, connection } = await open(await ticketOf('ada', 60_000))
    expect((await renew(connection, await ticketOf('ada', 60_000, []))).status).toBe(204)
    await source.end()
    expect(source.of('end')).toEqual([{ reason: 'topic-refused', detail: 'This topic is not open to you: a' }])
  })

  it('are not taken from another user, nor for a connection that is not there', async () => {
    const { source, connection } = await open(await ticketOf('ada', 60_000))
    const foreign = await renew(connection, await ticketOf('bob', 60_000))
    expect([foreign.status, foreign.headers.get('content-type')]).toEqual([403, 'application/problem+json'])
    expect((await renew('A'.repeat(22), await ticketOf('ada', 60_000))).status).toBe(404)
    expect((await renew(connection, 'forged')).status).toBe(401)
    expect(source.ended).toBe(false)
  })

  it('are told when there are none in time', async () => {
    const { source } = await open(await ticketOf('ada', 300))
    await source.end()
    expect(source.of('end')).toEqual([{ reason: 'identity-expired', detail: 'Credentials expired' }])
    expect([rig.limits.open, rig.attendances.every(({ left }) => left), rig.hub.counters.subscribers]).toEqual([
      0,
      true,
      0,
    ])
  })
})
