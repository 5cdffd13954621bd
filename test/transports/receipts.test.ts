import { SignJWT } from 'jose'
import { afterEach, describe, expect, it } from 'vitest'
import type { AccessConfig } from '../../src/config/access.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { openReceipts } from '../../src/receipts/open-receipts.js'
import type { Receipts } from '../../src/receipts/receipts.js'
import { MemoryStore } from '../../src/storage/memory-store.js'
import { registerPoll } from '../../src/transports/poll/poll.js'
import { registerReceipts } from '../../src/transports/receipts.js'
import { registerEvents } from '../../src/transports/sse/sse.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from './rig.js'

let rig: Rig
let receipts: Receipts

afterEach(async () => {
  await receipts.close()
  await rig.close()
})

async function start(config: ConfigInput = {}, more: RigOptions['register'] = () => {}): Promise<void> {
  const later: Receipts = {
    outstanding: { devices: 0, events: 0 },
    acknowledged: async () => false,
    record: (...args) => receipts.record(...args),
    reserve: (...args) => receipts.reserve(...args),
    report: (...args) => receipts.report(...args),
    topicOf: id => receipts.topicOf(id),
    close: async () => {},
  }
  const register: RigOptions['register'] = async (app, options) => {
    registerReceipts(app, options)
    await more(app, options)
  }
  rig = await startRig({ register, parts: { receipts: later }, config })
  const { push, log } = rig.options
  const { journal, publisher, presence, hub } = push
  const store = new MemoryStore()
  const bounds = { maxReceipts: 5000 }
  receipts = await openReceipts({ store, journal, publisher, presence, tracking: hub.tracking, log, bounds })
}

interface Answer {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: what came is what is tested
  readonly body: any
}

async function ask(method: 'GET' | 'POST', query: string, body?: unknown, headers = {}): Promise<Answer> {
  const text = typeof body === 'string' || body === undefined ? body : JSON.stringify(body)
  const response = await fetch(`${rig.url}/v1/receipts${query}`, { method, headers, ...(text && { body: text }) })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

describe('a receipt', () => {
  it('is new once, and the same again after that', async () => {
    await start()
    const { id } = await rig.publish('news', 'x')
    const first = await ask('POST', '?device=d1', { id, status: 'received' })
    expect(first).toMatchObject({ status: 201, body: { id, device: 'd1', status: 'received' } })
    expect(first.headers.get('cache-control')).toBe('no-store')
    const again = await ask('POST', '?device=d1', { id, status: 'received', detail: 'again' })
    expect([again.status, again.body]).toEqual([200, first.body])
    const failed = await ask('POST', '?device=d1', { id, status: 'failed', detail: 'no paper' })
    expect(failed).toMatchObject({ status: 201, body: { status: 'failed', detail: 'no paper' } })
    expect((await ask('POST', '?device=d1', { id, status: 'processed' })).body).toEqual(failed.body)
  })

  it('comes with a name for whoever has none', async () => {
    await start()
    const { id } = await rig.publish('news', 'x')
    const { body } = await ask('POST', '', { id, status: 'received' })
    expect(body.device).toMatch(/^[0-9a-f-]{36}$/)
    expect((await ask('GET', `?id=${id}`)).body.receipts).toMatchObject([{ device: body.device }])
  })

  it('comes with others, and those that are of no use do not stop them', async () => {
    await start()
    const [a, b] = [await rig.publish('news', 'a'), await rig.publish('news', 'b')]
    const gone = `${a.id}999`
    const answer = await ask('POST', '?device=d', {
      receipts: [
        { id: a.id, status: 'received' },
        { id: gone, status: 'received' },
        { id: b.id, status: 'received' },
        { id: a.id, status: 'processed' },
      ],
    })
    expect(answer).toMatchObject({
      status: 201,
      body: {
        receipts: [
          { id: a.id, status: 'received' },
          { id: gone, problem: { status: 404, reason: 'unknown-event' } },
          { id: b.id, status: 'received' },
          { id: a.id, status: 'processed' },
        ],
      },
    })
    const same = await ask('POST', '?device=d', { receipts: [{ id: b.id, status: 'received' }] })
    expect(same.status).toBe(200)
  })

  it('is told to MQTT clients, and of that a receipt can come again', async () => {
    await start()
    const { id } = await rig.publish('news', 'x')
    await ask('POST', '?device=d1', { id, status: 'received' })
    await eventually(() => rig.journal.head === 2)
    const query = { after: 1, through: 2, limit: 1, maxBytes: 1000 }
    const [told] = (await rig.journal.read(query)).events
    expect(told).toMatchObject({ topic: 'receipts/news', qos: 1 })
    expect(JSON.parse(String(told?.payload))).toMatchObject({ type: 'receipt', id, device: 'd1' })
    expect((await ask('POST', '?device=d1', { id: told?.id, status: 'received' })).status).toBe(201)
  })
})

describe('a report', () => {
  it('says who was asked, to whom it was written, and who has said what', async () => {
    await start()
    const event = await rig.publish('news', 'x')
    await receipts.reserve(event.topic, { from: ['a', 'b'], within: 60_000 }, 'somebody').confirm(event)
    rig.hub.tracking.wroteOne('a', event.sequence)
    await ask('POST', '?device=a', { id: event.id, status: 'processed', detail: 'printed' })
    const answer = await ask('GET', `?id=${event.id}`)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(answer.body).toEqual({
      id: event.id,
      topic: 'news',
      time: new Date(event.time).toISOString(),
      requested: { from: ['a', 'b'], count: 2, devices: ['a', 'b'], deadline: expect.stringMatching(/Z$/) },
      written: ['a'],
      receipts: [{ device: 'a', status: 'processed', time: expect.stringMatching(/Z$/), detail: 'printed' }],
    })
    const plain = await rig.publish('news', 'y')
    expect((await ask('GET', `?id=${plain.id}`)).body).toMatchObject({ requested: null, written: [], receipts: [] })
  })

  it.each([
    ['an event stream', '/v1/events?topic=%23&device=d'],
    ['a long-poll', '/v1/poll?topic=%23&device=d'],
  ])('has who got it in %s as one to whom it was written', async (_name, path) => {
    await start({}, (app, options) => {
      registerEvents(app, options)
      registerPoll(app, options)
    })
    const listening = fetch(rig.url + path)
    await eventually(() => rig.hub.counters.subscribers === 1 && rig.hub.counters.catchingUp === 0)
    const event = await rig.publish('news', 'x')
    await receipts.reserve(event.topic, { from: ['d', 'e'], within: 60_000 }, 'somebody').confirm(event)
    await eventually(async () => (await receipts.report(event.id))?.written.length === 1)
    expect((await ask('GET', `?id=${event.id}`)).body.written).toEqual(['d'])
    await (await listening).body?.cancel()
  })

  it('comes in parts where there are many', async () => {
    await start()
    const { id } = await rig.publish('news', 'x')
    for (const device of ['a', 'b', 'c']) await receipts.record(id, { device, status: 'received' })
    const devices = async (query: string) =>
      (await ask('GET', `?id=${id}${query}`)).body.receipts.map(({ device }: { device: string }) => device)
    expect(await devices('&limit=2')).toEqual(['a', 'b'])
    expect(await devices('&limit=2&after=b')).toEqual(['c'])
  })
})

describe('what is wrong is refused with its name', () => {
  it.each<[string, unknown, string]>([
    ['', '{', ''],
    ['', [], ''],
    ['', {}, 'id'],
    ['', { id: 'x', status: 'received' }, 'id'],
    ['', { id: 7, status: 'received' }, 'id'],
    ['', { id: '000000000000000-1' }, 'status'],
    ['', { id: '000000000000000-1', status: 'seen' }, 'status'],
    ['', { id: '000000000000000-1', status: 'received', more: 1 }, ''],
    ['', { id: '000000000000000-1', status: 'received', detail: 'ü'.repeat(513) }, 'detail'],
    ['', { id: '000000000000000-1', status: 'received', detail: '\ud800' }, 'detail'],
    ['', { receipts: [] }, 'receipts'],
    ['', { receipts: [{ id: '000000000000000-1', status: 'received' }, { id: 'x' }] }, 'receipts[1].id'],
    ['?device=%0a', { id: '000000000000000-1', status: 'received' }, 'device'],
    ['?device=', { id: '000000000000000-1', status: 'received' }, 'device'],
  ])('%s %j', async (query, body, parameter) => {
    await start()
    const answer = await ask('POST', query, body)
    const named = parameter === '' ? {} : { parameter }
    expect(answer).toMatchObject({ status: 400, body: { reason: 'invalid-parameter', ...named } })
    if (parameter === '') expect(answer.body).not.toHaveProperty('parameter')
    expect(answer.headers.get('content-type')).toBe('application/problem+json')
  })

  it('too many at once, before each is looked at', async () => {
    await start()
    for (const [more, detail] of [
      [1000, /^receipts must/],
      [300_000, /^The JSON must/],
    ] as const) {
      const body = `{"receipts":[${'{},'.repeat(more)}{}]}`
      expect(await ask('POST', '', body)).toMatchObject({
        status: 400,
        body: { detail: expect.stringMatching(detail) },
      })
    }
  })

  it('an event that is not there', async () => {
    await start()
    const id = '000000000000000-1'
    const unknown = { status: 404, body: { reason: 'unknown-event', parameter: 'id' } }
    expect(await ask('POST', '?device=d', { id, status: 'received' })).toMatchObject(unknown)
    expect(await ask('GET', `?id=${id}`)).toMatchObject(unknown)
    for (const query of ['', '?id=', '?id=x', '?id=2024-01-01']) {
      expect(await ask('GET', query)).toMatchObject({ status: 400, body: { parameter: 'id' } })
    }
    expect(await ask('GET', `?id=${id}&limit=0`)).toMatchObject({ status: 400, body: { parameter: 'limit' } })
    expect(await ask('GET', `?id=${id}&limit=10001`)).toMatchObject({ status: 400, body: { parameter: 'limit' } })
  })

  it('other methods, and bodies that are too large', async () => {
    await start({ limits: { bodySize: '1KiB' } })
    const answer = await fetch(`${rig.url}/v1/receipts`, { method: 'PUT' })
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, POST, OPTIONS'])
    expect((await ask('POST', '', 'x'.repeat(2000))).status).toBe(413)
  })
})

describe('who may', () => {
  const secret = '0123456789abcdef0123456789abcdef'
  const as = async (sub: string, claims: Record<string, unknown> = {}) => {
    const exp = Math.floor(Date.now() / 1000) + 60
    const token = new SignJWT({ ...claims, sub, exp }).setProtectedHeader({ alg: 'HS256' })
    return { authorization: `Bearer ${await token.sign(Buffer.from(secret))}` }
  }
  const rules: NonNullable<AccessConfig['rules']> = [
    { to: { user: 'ada' }, publish: [], subscribe: ['news/#'] },
    { to: { user: 'auditor' }, publish: [], subscribe: ['receipts/#'] },
  ]

  it('send receipts of what they may read, as who they are, and read those of what they may', async () => {
    await start({ access: { jwt: { secret }, rules } })
    const [news, secretEvent] = [await rig.publish('news/x', ''), await rig.publish('secret/x', '')]
    const sent = await ask('POST', '?device=mallory', { id: news.id, status: 'received' }, await as('ada'))
    expect(sent).toMatchObject({ status: 201, body: { device: 'ada' } })
    const phone = await as('ada', { device: 'ada-phone' })
    expect((await ask('POST', '', { id: news.id, status: 'received' }, phone)).body.device).toBe('ada-phone')
    const refused = await ask('POST', '', { id: secretEvent.id, status: 'received' }, await as('ada'))
    expect(refused).toMatchObject({ status: 403, body: { reason: 'topic-refused', parameter: 'id' } })
    expect(JSON.stringify(refused.body)).not.toContain('secret')
    const report = async (user: string, id: string) => (await ask('GET', `?id=${id}`, undefined, await as(user))).status
    expect([await report('ada', news.id), await report('auditor', news.id), await report('eve', news.id)]).toEqual([
      200, 200, 403,
    ])
    expect([await report('ada', secretEvent.id), await report('auditor', secretEvent.id)]).toEqual([403, 200])
    expect((await ask('GET', `?id=${news.id}`, undefined, await as('ada'))).body.receipts).toMatchObject([
      { device: 'ada', user: 'ada' },
      { device: 'ada-phone', user: 'ada' },
    ])
    const nobody = [await ask('GET', `?id=${news.id}`), await ask('POST', '', '{'.repeat(2 ** 21))]
    expect(nobody.map(({ status }) => status)).toEqual([401, 401])
  })
})
