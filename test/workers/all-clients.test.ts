import { expect, test } from 'vitest'
import { type ClientListQuery, LocalClients } from '../../src/base/client-directory.js'
import { type ConnectedClient, ConnectedClients } from '../../src/base/connected-clients.js'
import { createLog } from '../../src/base/log.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import { AllClients } from '../../src/workers/all-clients.js'
import type { WorkerGroup } from '../../src/workers/primary-process.js'

const always = () => true

function makeClient(clientId: string): ConnectedClient {
  return {
    ...{ clientId, connection: clientId, user: undefined, username: undefined, address: '127.0.0.1' },
    ...{ protocolVersion: 4, transport: 'tcp', path: undefined, broker: 'embedded', since: 0 },
    ...{ traffic: { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0 }, bufferedBytes: 0, session: undefined },
    end: () => {},
  }
}

/** The directory of the first of some workers; `missing` further ones do not answer. */
function makeWorkers(count: number, missing = 0) {
  const log = createLog({ level: 'silent', format: 'json' })
  const workers = Array.from({ length: count }, (_, index) => new ConnectedClients(new TimeSlicer(), index + 1))
  const locals = workers.map(clients => new LocalClients(clients, log))
  const group: Pick<WorkerGroup, 'askOthers' | 'onQuestion'> = {
    onQuestion: () => {},
    askOthers: async (_kind, body) => ({
      answers: await Promise.all(locals.slice(1).map(local => local.list(body as ClientListQuery, always)) as never[]),
      missing,
    }),
  }
  return { workers, all: new AllClients(locals[0] as LocalClients, group as WorkerGroup) }
}

async function listAll(all: AllClients, limit: number) {
  const ids: string[] = []
  const pages: number[] = []
  for (let after: number | undefined; ; ) {
    const page = await all.list({ wanted: {}, after, limit }, always)
    ids.push(...page.clients.map(({ clientId }) => clientId))
    pages.push(page.clients.length)
    if (page.next === undefined) return { ids, pages, ...page }
    after = page.next
  }
}

test('pages over the clients of all workers have each one once, in the order of connecting', async () => {
  const { workers, all } = makeWorkers(3)
  for (let index = 0; index < 100; index++) workers[(index * index) % 3]?.connected(makeClient(String(index)))
  const { ids, pages, connected, isIncomplete } = await listAll(all, 7)
  expect([connected, isIncomplete]).toEqual([100, false])
  expect(new Set(ids).size).toBe(100)
  expect(pages).toEqual([...Array(14).fill(7), 2])
})

test('a page that one worker ends because of its size ends for all', async () => {
  const { workers, all } = makeWorkers(2)
  for (let index = 0; index < 40; index++) {
    const length = index % 2 === 1 ? 60_000 : 4
    workers[index % 2]?.connected(makeClient(String(index).padStart(length, '0')))
  }
  const { ids, pages } = await listAll(all, 1000)
  expect(new Set(ids.map(Number)).size).toBe(40)
  expect(pages.length).toBe(2)
  expect(ids.length).toBe(40)
})

test('a worker that does not answer is told', async () => {
  const { all } = makeWorkers(2, 1)
  expect(await listAll(all, 10)).toMatchObject({ ids: [], isIncomplete: true })
})
