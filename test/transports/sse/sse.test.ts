import { once } from 'node:events'
import { afterEach, describe, expect, it } from 'vitest'
import { identityOf } from '../../../src/base/identity.js'
import { FilterQuota } from '../../../src/hub/filter-quota.js'
import { formatId } from '../../../src/journal/event.js'
import { registerEvents } from '../../../src/transports/sse/sse.js'
import { startTestGateway } from '../../helpers/gateway.js'
import { EventStreamParser } from '../../helpers/sse-parser.js'
import { eventually, settled } from '../../helpers/wait.js'
import { openSource, openSource2, type TestSource } from '../event-source.js'
import { type Rig, type RigOptions, startRig } from '../rig.js'

let rig: Rig
const start = async (options: Partial<RigOptions> = {}): Promise<Rig> => {
  rig = await startRig({ register: registerEvents, ...options })
  return rig
}
afterEach(() => rig.close())

const at = (sequence: number): string => formatId(rig.journal.epoch, sequence)
const path = (query: string): string => `/v1/events?${query}`
const openIn1 = (query: string, headers: Record<string, string> = {}): Promise<TestSource> =>
  openSource(rig.url + path(query), headers)
const publishMany = (count: number, topic: string, from = 0) =>
  Promise.all(Array.from({ length: count }, (_, index) => rig.publish(topic, String(from + index))))
const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => String(from + index))

/** That nothing is left of any stream. */
const expectNothingLeft = async (): Promise<void> => {
  await eventually(() => rig.hub.counters.subscribers === 0)
  expect([rig.limits.open, rig.options.connections.size]).toEqual([0, 0])
  expect(rig.attendances.filter(({ left }) => !left)).toEqual([])
}

describe.each(['HTTP/1.1', 'HTTP/2'])('an event stream over %s', version => {
  const open = (query: string, headers: Record<string, string> = {}): Promise<TestSource> =>
    version === 'HTTP/2' ? openSource2(rig.http2(), path(query), headers) : openIn1(query, headers)

  it('says at once that it is open, and under what name', async () => {
    await start()
    const source = await open('topic=a&device=kitchen')
    expect(source.status).toBe(200)
    expect(source.headers).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store, no-transform',
      'x-accel-buffering': 'no',
      'x-content-type-options': 'nosniff',
      vary: 'origin',
    })
    await eventually(() => source.of('welcome').length === 1)
    expect(source.of('welcome')).toEqual([
      { connection: expect.stringMatching(/^[\w-]{22}$/), device: 'kitchen', heartbeat: 15 },
    ])
    expect(source.parser.retry).toBe(2000)
    expect(source.parser.comments).toBe(1)
  })

  it('tells what is retained first, then where that ends, then what comes', async () => {
    await start()
    await rig.publish('a/b', 'state', { retain: true })
    await rig.publish('a/c', 'news')
    const source = await open('topic=a/%2B')
    await source.live()
    expect(source.of('message')).toMatchObject([{ topic: 'a/b', payload: 'state', retained: true }])
    const { events, lastEventId, emptyBlocks } = source.parser
    expect(events.map(({ type, lastEventId }) => [type, lastEventId])).toEqual([
      ...[
        ['welcome', ''],
        ['message', ''],
        ['live', at(2)],
      ],
    ])
    expect([source.of('live'), lastEventId, emptyBlocks]).toEqual([[{ cursor: at(2) }], at(2), 0])
    await rig.publish('a/d', 'more')
    await source.messages(2)
    expect(source.of('message')[1]).toMatchObject({ id: at(3), topic: 'a/d', payload: 'more' })
    expect(source.parser.lastEventId).toBe(at(3))
  })

  it('goes on where a client was: the header before the parameters, and those before last', async () => {
    await start()
    await publishMany(6, 'a')
    const header = await open(`topic=a&cursor=${at(1)}&last=1`, { 'last-event-id': at(4) })
    const parameter = await open(`topic=a&cursor=${at(3)}&last_event_id=${at(1)}`)
    const alias = await open(`topic=a&last_event_id=${at(2)}&last=1`)
    const newest = await open('topic=a&last=2&cursor=')
    const none = await open('topic=a&last=0')
    for (const source of [header, parameter, alias, newest, none]) await source.live()
    expect([header, parameter, alias, newest, none].map(source => source.payloads())).toEqual([
      ['4', '5'],
      ['3', '4', '5'],
      ['2', '3', '4', '5'],
      ['4', '5'],
      [],
    ])
  })

  it.each(['lastEventId', 'lastEventID', 'Last-Event-ID', 'Last-Event-Id', 'last-event-id', 'last_event_id'])(
    'takes %s in the query for Last-Event-ID, and the newest of all',
    async name => {
      await start()
      await publishMany(6, 'a')
      const strange = formatId('zzzzzzzzzzzzzzz', 9)
      const sources = [
        await open(`topic=a&${name}=${at(4)}&cursor=${at(1)}`),
        await open(`topic=a&cursor=${at(4)}&${name}=${at(1)}`, { 'last-event-id': at(2) }),
        await open(`topic=a&${name}=${at(1)}&${name}=${at(4)}`, { 'last-event-id': at(3) }),
        await open(`topic=a&${name}=&cursor=${at(4)}`, { 'last-event-id': strange }),
        await open(`topic=a&${name}=${at(4)}`, { 'last-event-id': 'nonsense' }),
        await open(`topic=a&${name}=${at(4)}&cursor=${at(900)}`),
      ]
      for (const source of sources) await source.live()
      expect(sources.map(source => [source.payloads(), source.of('gap')])).toEqual(Array(6).fill([['4', '5'], []]))
    },
  )

  it.each(['nonsense', 'a\r\nid: evil', 'x'.repeat(3000), '999999999999999-5'])(
    'takes a cursor that it cannot read for a gap, and goes on (%#)',
    async cursor => {
      await start({ push: { heartbeat: 1000 } })
      await rig.publish('a', 'state', { retain: true })
      const source = await open(`topic=a&cursor=${encodeURIComponent(cursor)}`)
      await source.live()
      const reason = cursor.startsWith('9') ? 'other-epoch' : 'unknown'
      expect(source.of('gap')).toEqual([{ reason, cursor: cursor.slice(0, 64), resumes: at(0) }])
      expect(source.payloads()).toContain('state')
      expect(source.parser.lastEventId).toBe(at(1))
    },
  )

  it('says that something is missing before it goes on', async () => {
    await start({ maxEvents: 2 })
    const before = await rig.publish('a', '0')
    await publishMany(5, 'a', 1)
    const source = await open('topic=a', { 'last-event-id': before.id })
    await source.live()
    expect(source.parser.events.map(({ type }) => type)).toEqual(['welcome', 'gap', 'message', 'message', 'live'])
    expect(source.of('gap')).toEqual([{ reason: 'evicted', cursor: before.id, resumes: at(4) }])
    expect(source.payloads()).toEqual(['4', '5'])
  })

  it('shows that it is alive, and where it is, when it has been silent', async () => {
    await start({ push: { heartbeat: 100 } })
    const source = await open('topic=a')
    await source.live()
    expect(source.parser.lastEventId).toBe(at(0))
    await rig.publish('elsewhere')
    await eventually(() => source.parser.lastEventId === at(1))
    expect(source.parser.comments).toBeGreaterThanOrEqual(2)
    expect(source.of('live')).toEqual([{ cursor: at(0) }, { cursor: at(1) }])
    const { comments } = source.parser
    await eventually(() => source.parser.comments >= comments + 2)
    // Where it has not moved, a heartbeat is a comment alone.
    expect([source.of('live').length, source.parser.emptyBlocks]).toEqual([2, 0])
    expect(source.of('message')).toEqual([])
    await eventually(() => (rig.attendances[0]?.signs ?? 0) > 0)
  })

  it('ends with the reason when the gateway shuts down', async () => {
    await start()
    const sources = [await open('topic=a'), await open('topic=b')]
    for (const source of sources) await source.live()
    rig.options.connections.close()
    for (const source of sources) {
      await source.end()
      expect(source.of('end')).toEqual([{ reason: 'shutting-down', detail: 'The gateway is shutting down' }])
    }
    await expectNothingLeft()
    expect((await open('topic=a')).status).toBe(503)
  })

  it('answers HEAD with the headers alone', async () => {
    await start()
    const answer = await fetch(rig.url + path('topic=a'), { method: 'HEAD' })
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8'])
    expect(rig.attendances).toEqual([])
  })

  it('leaves nothing behind when its client goes', async () => {
    await start()
    const sources = await Promise.all(Array.from({ length: 20 }, () => open('topic=a')))
    expect(rig.limits.open).toBe(20)
    for (const source of sources) source.leave()
    await expectNothingLeft()
  })

  it('cuts off a client that never reads, and nobody else', async () => {
    await start({ push: { maxQueuedEvents: 10 } })
    const [slow, quick] = [await open('topic=a'), await open('topic=a')]
    await Promise.all([slow.live(), quick.live()])
    slow.pause()
    const payload = 'x'.repeat(65_536)
    let sent = 0
    while (rig.hub.counters.cutOff === 0) {
      await rig.publish('a', payload)
      await quick.messages(++sent)
    }
    expect(rig.hub.counters.subscribers).toBe(1)
    expect(rig.limits.open).toBe(1)
    // It had no room for the last word, and is not waited for.
    await eventually(() => rig.log.lines.some(({ ['reason']: reason }) => reason === 'client-too-slow'))
    await rig.publish('a', 'after')
    await quick.messages(sent + 1)
    expect(quick.payloads().at(-1)).toBe('after')
    slow.resume()
    await slow.end()
    // All that it got, it got in order, and its place is that of the last of them.
    const ids = slow.of('message').map(({ id }) => id)
    expect(ids).toEqual(Array.from({ length: ids.length }, (_, index) => at(index + 1)))
    expect(slow.parser.lastEventId).toBe(ids.at(-1))
  })

  it.each([
    ['', 'topic'],
    ['topic=', 'topic'],
    ['topic=a%23', 'topic'],
    [`topic=${'a/'.repeat(100)}`, 'topic'],
    [Array.from({ length: 101 }, (_, index) => `topic=t${index}`).join('&'), 'topic'],
    ['topic=a&last=10001', 'last'],
    ['topic=a&json=1', 'json'],
    ['topic=a&enveloped=no', 'enveloped'],
    [`topic=a&device=${'x'.repeat(256)}`, 'device'],
  ])('says what is wrong with ?%s', async (query, parameter) => {
    await start()
    const answer = await fetch(rig.url + path(query))
    expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/problem+json'])
    expect(await answer.json()).toMatchObject({ parameter, reason: 'invalid-parameter' })
    expect([rig.limits.open, rig.attendances]).toEqual([0, []])
  })
})

describe('event streams', () => {
  it('are all live in one connection of HTTP/2', async () => {
    await start()
    const session = rig.http2()
    const sources = await Promise.all(
      Array.from({ length: 10 }, (_, index) => openSource2(session, path(`topic=all&topic=own/${index}`))),
    )
    for (const source of sources) await source.live()
    await rig.publish('all', 'everybody')
    await Promise.all(sources.map((_, index) => rig.publish(`own/${index}`, String(index))))
    for (const source of sources) await source.messages(2)
    expect(sources.map(source => source.payloads())).toEqual(numbers(0, 10).map(number => ['everybody', number]))
    sources[3]?.leave()
    await eventually(() => rig.hub.counters.subscribers === 9)
    session.destroy()
    await expectNothingLeft()
  })

  it('are only of topics that one may listen to', async () => {
    await start({
      config: {
        access: {
          jwt: { secret: '0123456789abcdef0123456789abcdef', audience: 'mqway' },
          rules: [{ to: { role: 'reader' }, subscribe: ['news/#'] }],
        },
      },
    })
    const ticket = async () =>
      (await rig.access.tickets.issue(identityOf('ada', 'token', { roles: ['reader'] }))).ticket
    const refused = await fetch(rig.url + path(`topic=news/a&topic=other&ticket=${await ticket()}`))
    expect(refused.status).toBe(403)
    expect(await refused.json()).toMatchObject({ reason: 'topic-refused', detail: expect.stringContaining(': other') })
    expect((await fetch(rig.url + path(`topic=%23&ticket=${await ticket()}`))).status).toBe(403)
    expect((await fetch(rig.url + path('topic=news/a&ticket=forged'))).status).toBe(401)
    const source = await openIn1(`topic=news/a&ticket=${await ticket()}&device=ignored`)
    await source.live()
    expect(source.of('welcome')).toMatchObject([{ device: 'ada' }])
    expect(rig.attendances).toMatchObject([{ device: 'ada', user: 'ada', transport: 'sse', topics: ['news/a'] }])
  })

  it('count as connections', async () => {
    await start({ config: { limits: { connectionsPerAddress: 2 } } })
    const [first] = [await openIn1('topic=a'), await openIn1('topic=a')]
    const refused = await fetch(rig.url + path('topic=a'))
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '10'])
    first.leave()
    await eventually(() => rig.limits.open === 1)
    expect((await openIn1('topic=a')).status).toBe(200)
  })

  it('are answered with 200, the time to come back after and the event end where a client of event streams cannot have one just now', async () => {
    await start({ config: { limits: { connectionsPerAddress: 1 } } })
    const first = await openIn1('topic=a')
    const refused = await openIn1('topic=a', { accept: 'text/event-stream' })
    await refused.end()
    expect([refused.status, refused.headers['content-type'], refused.headers['retry-after']]).toEqual([
      ...[200, 'text/event-stream; charset=utf-8', '10'],
    ])
    expect(refused.parser).toMatchObject({ retry: 10_000, emptyBlocks: 0 })
    const detail = 'Too many connections from your address'
    expect(refused.of('end')).toEqual([{ reason: 'too-many-from-address', detail }])
    expect((await openIn1('topic=a', { accept: 'text/html, */*' })).status).toBe(429)
    first.leave()
    await eventually(() => rig.limits.open === 0)
    const later = await openIn1('topic=a', { accept: 'text/event-stream' })
    await later.live()
    expect(later.parser.retry).toBe(2000)
  })

  it('are refused where the user or address has its share of all topic filters, until it has fewer', async () => {
    await start({ parts: { filterQuota: new FilterQuota(2000) } })
    const first = await openIn1('topic=a')
    expect((await openIn1('topic=a')).status).toBe(503)
    first.leave()
    await eventually(() => rig.limits.open === 0)
    expect((await openIn1('topic=a')).status).toBe(200)
  })

  it('are answered with 200 and the event end where it cannot be found out just now who asks', async () => {
    await start({ config: { access: { webhook: { url: 'http://127.0.0.1:9/' } } } })
    const headers = { accept: 'text/event-stream', authorization: `Basic ${btoa('ada:secret')}` }
    const refused = await openIn1('topic=a', headers)
    await refused.end()
    expect([refused.status, refused.of('end')]).toMatchObject([200, [{ reason: 'identity-unavailable' }]])
    expect((await openIn1('topic=a', { authorization: headers.authorization })).status).toBe(503)
  })

  it.each([
    { status: 400, query: 'topic=%23%23' },
    { status: 403, query: 'topic=closed' },
  ])('are refused with $status for good', async ({ status, query }) => {
    await start({ config: { access: { rules: [{ to: 'anonymous', subscribe: ['open'] }] }, anonymous: true } })
    expect((await openIn1(query, { accept: 'text/event-stream' })).status).toBe(status)
  })

  it('tell a page of another origin what it may know', async () => {
    await start({ push: { origins: ['https://a.example'] } })
    const headers = { origin: 'https://a.example' }
    const source = await openIn1('topic=a', headers)
    expect(source.headers['access-control-allow-origin']).toBe('https://a.example')
    expect((await openIn1('topic=a', { origin: 'https://b.example' })).status).toBe(403)
    const preflight = await fetch(rig.url + path('topic=a'), { method: 'OPTIONS', headers })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-headers')).toContain('last-event-id')
    const other = await fetch(rig.url + path('topic=a'), { method: 'POST', headers })
    expect([other.status, other.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS'])
  })

  it('let go of clients that went before they were let in', async () => {
    await start()
    for (let round = 0; round < 20; round++) {
      const socket = rig.tcp()
      await once(socket, 'connect')
      socket.write(`GET ${path('topic=a')} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
      if (round % 2 === 0) socket.resetAndDestroy()
      else socket.end()
      socket.resume()
    }
    await settled(() => rig.hub.counters.subscribers)
    await expectNothingLeft()
  })

  it('ignore what else their client sends', async () => {
    await start()
    const socket = rig.tcp()
    const parser = new EventStreamParser()
    let text = ''
    socket.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1')
      parser.push(bytes)
    })
    const get = `GET ${path('topic=a')} HTTP/1.1\r\nHost: localhost\r\n\r\n`
    socket.write(get)
    await eventually(() => parser.lastEventId !== '')
    socket.write(get + get)
    socket.write('no HTTP at all\r\n\r\n')
    await rig.publish('a', 'one')
    await eventually(() => parser.events.some(({ type }) => type === 'message'))
    await rig.publish('a', 'two')
    await eventually(() => text.includes('"two"'))
    expect([text.match(/HTTP\/1\.1/g)?.length, rig.hub.counters.subscribers]).toEqual([1, 1])
  })

  it('come behind answers that a client did not wait for', async () => {
    await start()
    const socket = rig.tcp()
    let text = ''
    socket.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1')
    })
    const wrong = 'GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n'
    socket.write(`${wrong}GET ${path('topic=a')} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    await eventually(() => /400 Bad Request.*200 OK.*\nid: /s.test(text))
    await rig.publish('a', 'one')
    await eventually(() => text.includes('"one"'))
    socket.destroy()
    await expectNothingLeft()
  })

  it('have no end of their own, however long they are silent', async () => {
    await start({ push: { heartbeat: 300_000 } })
    const source = await openIn1('topic=a')
    await source.live()
    // What waits for its next request since the same time is not waited for any longer.
    const idle = rig.tcp()
    idle.write('GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await once(idle.resume(), 'end')
    await rig.publish('a', 'still')
    await source.messages(1)
    expect(source.ended).toBe(false)
  })

  it('are in the access log as they begin, and in the log as they end', async () => {
    await start()
    const source = await openIn1('topic=a')
    expect(await rig.log.line(/^request$/)).toMatchObject({ path: '/v1/events', status: 200 })
    source.leave()
    expect(await rig.log.line(/The client closed/)).toMatchObject({ reason: 'client-closed', peer: '127.0.0.1' })
  })

  it('go over HTTP/1.1 with TLS', async () => {
    await start({ push: { heartbeat: 100 } })
    const source = await openSource(rig.secureUrl + path('topic=a'))
    await source.live()
    await rig.publish('a', 'one')
    await source.messages(1)
    await eventually(() => source.parser.comments > 1)
    source.leave()
    await expectNothingLeft()
  })

  it('go over a connection of HTTP/1.0', async () => {
    await start()
    const socket = rig.tcp()
    const parser = new EventStreamParser()
    socket.on('data', (bytes: Buffer) => parser.push(bytes))
    socket.write(`GET ${path('topic=a')} HTTP/1.0\r\nHost: localhost\r\n\r\n`)
    await eventually(() => parser.lastEventId !== '')
    await rig.publish('a', 'one')
    await eventually(() => parser.events.some(({ type }) => type === 'message'))
  })

  it('tell why before a whole gateway closes its listeners', async () => {
    await start()
    const gateway = await startTestGateway({ mqtt: { port: 'off' }, https: { port: 'off' } })
    const source = await openSource(gateway.urls.http + path('topic=a'))
    await source.live()
    await gateway.close()
    await source.end()
    expect(source.of('end')).toMatchObject([{ reason: 'shutting-down' }])
  })

  it('lose and double nothing over many reconnects while messages come', async () => {
    await start({ recent: { maxEvents: 16, maxBytes: 2 ** 20 } })
    const total = 400
    const publishing = (async () => {
      for (let index = 0; index < total; index++) {
        await rig.publish('a', String(index))
        if (index % 7 === 0) await new Promise(resolve => setImmediate(resolve))
      }
    })()
    const seen: unknown[] = []
    let cursor = at(0)
    for (let round = 1; seen.length < total; round++) {
      const source = await openIn1('topic=a', { 'last-event-id': cursor })
      await source.messages(Math.min(round % 30, total - seen.length))
      source.leave()
      seen.push(...source.payloads())
      cursor = source.parser.lastEventId || cursor
    }
    await publishing
    expect(seen).toEqual(numbers(0, total))
  })
})
