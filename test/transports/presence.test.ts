import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import type { Listener, PresenceHandle } from '../../src/presence/presence.js'
import { PresenceRegistry } from '../../src/presence/presence-registry.js'
import { registerPresence } from '../../src/transports/presence.js'
import { type Rig, startRig } from './rig.js'

/** What any answer may have. */
interface Answer {
  readonly count: number
  readonly listeners?: readonly { readonly since: string }[]
  readonly topics: Readonly<Record<string, number>>
  readonly reason?: string
  readonly detail?: string
}

describe('GET /v1/presence', () => {
  let rig: Rig
  let presence: PresenceRegistry

  const start = async (config: ConfigInput = {}): Promise<void> => {
    await rig?.close()
    presence = new PresenceRegistry({ grace: 10_000 })
    rig = await startRig({ register: registerPresence, config, parts: { presence } })
  }
  beforeEach(() => start())
  afterEach(async () => {
    await rig.close()
    presence.close()
  })
  const enter = (device: string, topics: string[], more: Partial<Listener> = {}): PresenceHandle =>
    presence.enter({ device, transport: 'sse', topics, ...more })
  const get = async (query: string, init: RequestInit = {}) => {
    const response = await fetch(`${rig.url}/v1/presence${query}`, init)
    const body: Answer = JSON.parse(await response.text())
    return { status: response.status, headers: response.headers, body }
  }

  it('tells who listens to a topic, with which filters, and since when', async () => {
    const before = Date.now()
    enter('kitchen', ['news/#', 'weather'], { user: 'alice' })
    enter('hall', ['news/+/sport'], { transport: 'poll' }).leave()
    const { status, headers, body } = await get('?topic=news/eu/sport')
    expect([status, headers.get('cache-control')]).toEqual([200, 'no-store'])
    expect(body).toEqual({
      topic: 'news/eu/sport',
      count: 2,
      listeners: [
        {
          device: 'kitchen',
          user: 'alice',
          transport: 'sse',
          topics: ['news/#'],
          connections: 1,
          since: expect.any(String),
          lastSeen: expect.any(String),
        },
        {
          device: 'hall',
          transport: 'poll',
          topics: ['news/+/sport'],
          connections: 0,
          since: expect.any(String),
          lastSeen: expect.any(String),
        },
      ],
    })
    const since = Date.parse(body.listeners?.[0]?.since ?? '')
    expect(since).toBeGreaterThanOrEqual(before)
    expect(since).toBeLessThanOrEqual(Date.now())
  })

  it('tells who listens with exactly a filter', async () => {
    enter('kitchen', ['news/+'])
    enter('hall', ['news/#'])
    expect((await get('?topic=news/%2B')).body).toMatchObject({ count: 1, listeners: [{ device: 'kitchen' }] })
    expect((await get('?topic=%23')).body).toEqual({ topic: '#', count: 0, listeners: [] })
  })

  it('counts all, and lists as many as were asked for', async () => {
    for (let at = 0; at < 120; at++) enter(`d${at}`, [`own/${at}`, 'x'])
    const listed = async (query: string) => {
      const { body } = await get(query)
      return [body.count, (body.listeners ?? Object.keys(body.topics)).length]
    }
    expect(await listed('?topic=x')).toEqual([120, 100])
    expect(await listed('?topic=x&limit=7')).toEqual([120, 7])
    expect(await listed('?topic=x&limit=1000')).toEqual([120, 120])
    expect(await listed('')).toEqual([120, 100])
    expect(await listed('?limit=2')).toEqual([120, 2])
  })

  it('counts by filter, whatever a filter is called', async () => {
    enter('kitchen', ['news/#', '__proto__'])
    enter('hall', ['news/#'])
    const { body } = await get('')
    expect(body.count).toBe(2)
    expect(Object.entries(body.topics)).toEqual([
      ['news/#', 2],
      ['__proto__', 1],
    ])
  })

  it('lists no more listeners than have a megabyte of filters', async () => {
    await start({ limits: { topicLength: '64KiB' } })
    const words = Array.from({ length: 7 }, () => 'w'.repeat(1000))
    const filters = Array.from({ length: 100 }, (_, bits) =>
      words.map((word, at) => ((bits >> at) & 1 ? '+' : word)).join('/'),
    )
    for (let at = 0; at < 40; at++) enter(`d${at}`, filters)
    const response = await fetch(`${rig.url}/v1/presence?topic=${words.join('/')}&limit=1000`)
    const text = await response.text()
    expect(text.length).toBeLessThan(1.1 * 2 ** 20)
    const { count, listeners } = JSON.parse(text)
    expect([count, listeners.length]).toEqual([40, 2])
  })

  it.each([
    ['?topic=a/%23/b', 'topic'],
    ['?topic=', 'topic'],
    [`?topic=${'a/'.repeat(100)}`, 'topic'],
    ['?topic=a&topic=b', 'topic'],
    ['?limit=0', 'limit'],
    ['?limit=1001', 'limit'],
    ['?topic=a&limit=ten', 'limit'],
  ])('refuses %s, and says what is wrong', async (query, parameter) => {
    const { status, headers, body } = await get(query)
    expect([status, headers.get('content-type')]).toEqual([400, 'application/problem+json'])
    expect(body).toMatchObject({ reason: 'invalid-parameter', parameter })
    expect(body.detail).toContain(`${parameter} must `)
  })

  it('answers those who may subscribe to what they ask about, and nobody else', async () => {
    const rules = [{ to: 'anonymous' as const, subscribe: ['news/#'] }]
    await start({ access: { rules } })
    enter('kitchen', ['#'])
    expect((await get('?topic=news/eu')).body).toMatchObject({ count: 1 })
    expect((await get('?topic=news/%23')).status).toBe(200)
    for (const query of ['', '?topic=weather', '?topic=%23', '?topic=%2B/eu', '?topic=$SYS/x']) {
      const { status, body } = await get(query)
      expect([query, status, body.reason]).toEqual([query, 403, 'topic-refused'])
    }
  })

  it('answers pages of the same origin, and a preflight of theirs', async () => {
    const preflight = await fetch(`${rig.url}/v1/presence`, {
      method: 'OPTIONS',
      headers: { origin: rig.url, 'access-control-request-method': 'GET' },
    })
    expect([preflight.status, preflight.headers.get('access-control-allow-methods')]).toEqual([204, 'GET, HEAD'])
    expect((await get('', { headers: { origin: rig.url } })).headers.get('access-control-allow-origin')).toBe(rig.url)
    expect(await get('', { headers: { origin: 'https://evil.example' } })).toMatchObject({
      status: 403,
      body: { reason: 'origin-refused' },
    })
  })

  it('is read, and nothing else', async () => {
    expect(await get('', { method: 'POST' })).toMatchObject({ status: 405 })
    expect((await fetch(`${rig.url}/v1/presence`, { method: 'HEAD' })).status).toBe(200)
  })
})
