import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { type CuttingProxy, startCuttingProxy } from '../helpers/cutting-proxy.js'
import { type EventClient, type Listen, pushTransports } from '../helpers/event-clients.js'
import type { ServingProgram } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { startSharedGateways } from '../helpers/shared-gateways.js'
import { eventually } from '../helpers/wait.js'

interface Report {
  readonly requested: { readonly devices: readonly string[]; readonly missed?: readonly string[] } | null
  readonly written: readonly string[]
  readonly receipts: readonly { readonly device: string; readonly status: string }[]
}

const listenOverSse = pushTransports['an event stream'] as Listen

describeWith(['redis-server', 'mosquitto'], 'receipts of several gateways', () => {
  const ask = async <T>(
    program: ServingProgram,
    path: string,
    content?: unknown,
  ): Promise<{ code: number; body: T }> => {
    const init = content === undefined ? {} : { method: 'POST', body: JSON.stringify(content) }
    const response = await fetch(`${program.url('http')}${path}`, init)
    return { code: response.status, body: (await response.json()) as T }
  }
  const reportOf = async (program: ServingProgram, id: string) =>
    (await ask<Report>(program, `/v1/receipts?id=${id}`)).body
  const acknowledge = (program: ServingProgram, device: string, id: string) =>
    ask<{ status: string; reason?: string }>(program, `/v1/receipts?device=${device}`, { id, status: 'processed' })
  const listen = async (program: ServingProgram, topics: string[]): Promise<EventClient> => {
    const client = await listenOverSse({ http: program.url('http'), https: '' }, { topics })
    onTestFinished(() => client.close())
    return client
  }
  const toldOf = ({ events }: EventClient) => events.map(({ payload }) => JSON.parse(payload.toString()))
  /** Opens an event stream of a device, and resolves when it is live. */
  const open = async (program: ServingProgram, device: string): Promise<void> => {
    const abort = new AbortController()
    onTestFinished(() => abort.abort())
    const url = `${program.url('http')}/v1/events?topic=jobs/%23&device=${device}`
    const reader = (await fetch(url, { signal: abort.signal })).body?.getReader()
    let text = ''
    while (!/\nid: \S+\n\n$/.test(text)) text += Buffer.from((await reader?.read())?.value ?? []).toString()
  }
  const request = (program: ServingProgram, receipt: object) =>
    ask<{ id: string }>(program, '/v1/publish', { topic: 'jobs/7', payload: 'x', receipt })
  const publish = async (program: ServingProgram, receipt: object): Promise<string> => {
    let id = ''
    await eventually(async () => {
      const { code, body } = await request(program, receipt)
      id = body.id
      return code === 201
    })
    return id
  }

  it('are the same at each, whoever publishes, has the devices, and is asked', async () => {
    const shared = await startSharedGateways()
    // With the permissions of docs/several-gateways.md.
    const permissions = '~mqway:* +@read +@write +@scripting +@connection +info +time'
    await shared.redis.client.call('ACL', 'SETUSER', 'mqway', 'on', '>secret', ...permissions.split(' '))
    const passwordFile = join(shared.directory, 'password')
    await writeFile(passwordFile, 'secret')
    const redis = { url: shared.redis.url, username: 'mqway', passwordFile }
    const start = () => shared.start({ push: { maxReceipts: 8, journal: { redis } } })
    const [a, b, c] = [await start(), await start(), await start()]
    const told = await listen(c, ['receipts/#'])
    await open(b, 'hall')
    await open(c, 'attic')
    const id = await publish(a, { from: ['hall', 'attic', 'cellar'], within: '2s' })
    for (const program of [a, b, c]) {
      await eventually(async () => (await reportOf(program, id)).written.length === 2)
      expect((await reportOf(program, id)).written).toEqual(['attic', 'hall'])
    }
    expect(await acknowledge(b, 'hall', id)).toMatchObject({ code: 201, body: { status: 'processed' } })
    expect(await acknowledge(c, 'hall', id)).toMatchObject({ code: 200, body: { status: 'processed' } })
    expect((await acknowledge(b, 'hall', `${id}999`)).code).toBe(404)
    await eventually(() => told.events.length === 2)
    expect(toldOf(told)).toMatchObject([
      { type: 'receipt', id, device: 'hall', status: 'processed' },
      { type: 'missed', id, devices: ['attic', 'cellar'] },
    ])
    for (const program of [a, b, c]) {
      expect(await reportOf(program, id)).toMatchObject({
        requested: { missed: ['attic', 'cellar'] },
        receipts: [{ device: 'hall', status: 'processed' }],
      })
    }
    await eventually(async () => {
      const present = await publish(a, { from: 'present', within: '100ms' })
      return (await reportOf(b, present)).requested?.devices.join() === 'attic,hall'
    })
    // Requests at other gateways count, too.
    await publish(a, { from: ['1', '2', '3', '4'], within: '1m' })
    await eventually(async () => (await request(b, { from: ['1', '2', '3'], within: '100ms' })).code === 429)
  }, 30_000)

  const resume = (program: ServingProgram): unknown => program.child.kill('SIGCONT')
  type Fault = (program: ServingProgram, cut: CuttingProxy) => unknown
  const faults: [name: string, fault: Fault, repair?: typeof resume][] = [
    ['is killed', program => program.stop('SIGKILL')],
    ['is stopped for a while', program => program.child.kill('SIGSTOP'), resume],
    ['is cut off from Redis', (_, cut) => cut.close()],
  ]
  for (const [name, fault, repair] of faults) {
    it(`outlive the one that stores them, which has also published: it ${name}`, async () => {
      const shared = await startSharedGateways()
      const cut = await startCuttingProxy(() => shared.redisPort)
      const a = await shared.start({ redisUrl: `redis://127.0.0.1:${cut.port}` })
      await eventually(async () => (await shared.redis.client.get('mqway:coordinator')) !== null)
      const [b, c] = [await shared.start(), await shared.start()]
      const told = await listen(c, ['receipts/#'])
      await open(b, 'hall')
      const id = await publish(a, { from: ['hall', 'attic', 'cellar'], within: '3s' })
      expect((await acknowledge(b, 'attic', id)).code).toBe(201)
      await eventually(async () => (await reportOf(b, id)).written.length === 1)
      await eventually(() => told.events.length === 1)
      await fault(a, cut)
      // Answered by the next coordinator, before it handles the deadline.
      expect((await acknowledge(c, 'hall', id)).code).toBe(201)
      await eventually(() => toldOf(told).some(({ type }) => type === 'missed'))
      repair?.(a)
      const later = await publish(b, { from: ['nobody'], within: '200ms' })
      await eventually(() => toldOf(told).some(({ type, id: of }) => type === 'missed' && of === later))
      expect(toldOf(told).map(({ device, devices }) => device ?? devices)).toEqual([
        ...['attic', 'hall'],
        ...[['cellar'], ['nobody']],
      ])
      for (const program of [b, c]) expect((await reportOf(program, id)).written).toEqual(['hall'])
      if (name !== 'is cut off from Redis') await cut.close()
    }, 40_000)
  }

  it('go on when Redis has lost the end of the journal', async () => {
    const { redis, start } = await startSharedGateways()
    const [a, b] = [await start(), await start()]
    const told = await listen(b, ['receipts/#'])
    const id = await publish(a, { from: ['hall', 'attic', 'cellar'], within: '4s' })
    expect((await acknowledge(a, 'hall', id)).code).toBe(201)
    await eventually(async () => {
      const fields = await redis.client.hkeys('mqway:receipts')
      return told.events.length >= 1 && !fields.some(field => field.startsWith(':m/'))
    })
    const keys = ['mqway:journal', 'mqway:events']
    const before = await Promise.all(keys.map(key => redis.client.dumpBuffer(key)))
    await publish(a, { from: ['hall'], within: '1m' })
    await Promise.all(keys.map((key, index) => redis.client.call('RESTORE', key, 0, before[index] ?? '', 'REPLACE')))
    await redis.client.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await eventually(() => told.gaps.includes('missed'))
    await eventually(async () => (await acknowledge(b, 'attic', id)).code === 201)
    await eventually(() => toldOf(told).some(({ type }) => type === 'missed'))
    expect(toldOf(told).map(({ device, devices }) => device ?? devices)).toEqual(['hall', 'attic', ['cellar']])
    expect((await reportOf(a, id)).requested).toBeUndefined()
  }, 40_000)

  it('are refused with the reason while Redis is away, and go on when it is back', async () => {
    const shared = await startSharedGateways()
    const [a, b] = [await shared.start(), await shared.start()]
    const told = await listen(b, ['receipts/#'])
    const id = await publish(a, { from: ['hall', 'cellar'], within: '4s' })
    expect((await acknowledge(a, 'hall', id)).code).toBe(201)
    // Its message is in the journal, and no longer in the queue.
    await eventually(async () => {
      const fields = await shared.redis.client.hkeys('mqway:receipts')
      return told.events.length >= 1 && !fields.some(field => field.startsWith(':m/'))
    })
    await shared.redis.kill()
    const unavailable = { code: 503, body: { reason: 'journal-unavailable' } }
    for (const program of [a, b]) {
      expect(await acknowledge(program, 'attic', id)).toMatchObject(unavailable)
      expect(await request(program, { from: ['hall'], within: '1s' })).toMatchObject(unavailable)
    }
    await shared.redis.start()
    await eventually(async () => (await acknowledge(b, 'attic', id)).code === 201)
    await eventually(() => toldOf(told).some(({ type }) => type === 'missed'))
    expect(toldOf(told).map(({ device, devices }) => device ?? devices)).toEqual(['hall', 'attic', ['cellar']])
    await shared.redis.client.flushall()
    const later = await publish(a, { from: ['nobody'], within: '200ms' })
    await eventually(() => toldOf(told).at(-1)?.id === later)
    expect(toldOf(told).at(-1)).toMatchObject({ type: 'missed', devices: ['nobody'] })
  }, 40_000)
})
