import { describe, expect, it } from 'vitest'
import { type ClientQuery, type ConnectedClient, ConnectedClients } from '../../src/base/connected-clients.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'

const makeClient = (clientId: string): ConnectedClient => ({
  ...{ clientId, connection: clientId, user: undefined, username: undefined, address: '127.0.0.1' },
  ...{ protocolVersion: 4, transport: 'tcp', path: undefined, broker: 'embedded', since: 0 },
  ...{ traffic: { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0 }, bufferedBytes: 0, session: undefined },
  end: () => {},
})

const everything: Omit<ClientQuery, 'after'> = {
  ...{ limit: 1000, maxSize: 1e6, sizeOf: () => 1, matches: () => true, isWanted: () => true },
}

function fill(count: number, slicer = new TimeSlicer()) {
  const clients = new ConnectedClients(slicer)
  const all = Array.from({ length: count }, (_, index) => makeClient(String(index)))
  for (const client of all) clients.connected(client)
  return { clients, all }
}

const ids = (found: readonly ConnectedClient[]): string[] => found.map(({ clientId }) => clientId)

describe('all connected clients', () => {
  it('come in pages, each client once, also where others leave between two pages', async () => {
    const { clients, all } = fill(2500)
    const seen: string[] = []
    let after: number | undefined
    do {
      const page = await clients.page({ ...everything, limit: 100, after })
      seen.push(...ids(page.clients))
      after = page.next
      // Those at the end of this page, and the next one.
      for (const client of [...page.clients.slice(-1), ...all.splice(-1)]) clients.disconnected(client, 'client-closed')
    } while (after !== undefined)
    expect(new Set(seen).size).toBe(seen.length)
    expect(clients.size + 25).toBeGreaterThanOrEqual(seen.length - 25)
    expect(seen.slice(0, 200)).toEqual(Array.from({ length: 200 }, (_, index) => String(index)))
  })

  it('are bounded by size, with one client at least', async () => {
    const { clients } = fill(3)
    const first = await clients.page({ ...everything, maxSize: 10, sizeOf: () => 100 })
    expect(ids(first.clients)).toEqual(['0'])
    const rest = await clients.page({ ...everything, after: first.next })
    expect([ids(rest.clients), rest.next]).toEqual([['1', '2'], undefined])
  })

  it('have a next page only where there is one', async () => {
    const { clients } = fill(4)
    expect((await clients.page({ ...everything, limit: 4 })).next).toBeUndefined()
    expect((await clients.page({ ...everything, limit: 3 })).next).toBeDefined()
  })

  it('are scanned in slices of time, and without the ones that leave meanwhile', async () => {
    let [now, slices] = [0, 0]
    const slicer = new TimeSlicer({ length: 4, isBusy: false }, () => now)
    const { clients, all } = fill(100, slicer)
    const gone = all.at(-1)
    const page = await clients.page({
      ...everything,
      matches: () => {
        now++
        return true
      },
      isWanted: () => {
        if (slices++ === 0 && gone) clients.disconnected(gone, 'client-closed')
        return true
      },
    })
    expect([page.clients.length, slices]).toEqual([99, 24])
  })

  it('are not scanned on where nobody waits for the result', async () => {
    let now = 0
    const { clients } = fill(100, new TimeSlicer({ length: 4, isBusy: false }, () => now))
    let looked = 0
    const matches = (): boolean => ++now > 0 && ++looked > 0
    await clients.page({ ...everything, matches, isWanted: () => false })
    expect(looked).toBe(4)
  })

  it('are watched, each end once', () => {
    const { clients } = fill(0)
    const seen: string[] = []
    clients.watch({
      connected: ({ clientId }) => seen.push(`+${clientId}`),
      disconnected: ({ clientId }, reason) => seen.push(`-${clientId} ${reason}`),
    })
    const client = makeClient('a')
    clients.connected(client)
    clients.disconnected(client, 'client-closed')
    clients.disconnected(client, 'client-closed')
    expect(seen).toEqual(['+a', '-a client-closed'])
  })
})
