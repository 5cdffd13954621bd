import { once } from 'node:events'
import type { Socket } from 'node:net'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { identityOf } from '../../../src/base/identity.js'
import { formatId } from '../../../src/journal/event.js'
import { pollEncoder, pollFormat, registerPoll } from '../../../src/transports/poll/poll.js'
import { eventually } from '../../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from '../rig.js'

let rig: Rig
const start = async (options: Partial<RigOptions> = {}): Promise<Rig> => {
  rig = await startRig({ register: registerPoll, ...options })
  return rig
}

interface PollBody {
  events: { id: string; topic: string; payload?: string; retained?: boolean; json?: unknown }[]
  cursor: string
  gap: { reason: string; cursor: string; resumes: string } | null
  device: string
}

const at = (sequence: number): string => formatId(rig.journal.epoch, sequence)
const ask = (query: string, init: RequestInit = {}): Promise<Response> => fetch(`${rig.url}/v1/poll?${query}`, init)
const poll = async (query: string): Promise<PollBody> => {
  const answer = await ask(query)
  expect(answer.status).toBe(200)
  return (await answer.json()) as PollBody
}
const payloads = ({ events }: PollBody) => events.map(({ payload }) => payload)
const waiting = (count = 1) =>
  eventually(() => rig.hub.counters.subscribers === count && rig.hub.counters.catchingUp === 0)
const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => String(from + index))
const publishMany = (count: number, topic: string) =>
  Promise.all(numbers(0, count).map(text => rig.publish(topic, text)))

describe('a long-poll', () => {
  afterEach(() => rig.close())

  it('is answered with what is retained, and then with what comes in one turn', async () => {
    await start()
    await rig.publish('a/b', 'state', { retain: true })
    const first = await poll('topic=a/%2B')
    expect(first.events).toMatchObject([{ topic: 'a/b', payload: 'state', retained: true }])
    expect(first).toMatchObject({ cursor: at(1), gap: null })
    const second = poll(`topic=a/%2B&cursor=${first.cursor}`)
    await waiting()
    await Promise.all([rig.publish('a/c', '1'), rig.publish('x', 'no'), rig.publish('a/d', '2')])
    expect(payloads(await second)).toEqual(['1', '2'])
    expect((await second).cursor).toBe(at(4))
  })

  it('is answered at once with what was missed', async () => {
    await start()
    const { cursor } = await poll('topic=a&timeout=0')
    await publishMany(2, 'a')
    expect(payloads(await poll(`topic=a&cursor=${cursor}`))).toEqual(['0', '1'])
  })

  it('is answered with no events when its time is up, and a cursor from which nothing is missing', async () => {
    await start()
    const first = poll('topic=a&timeout=1')
    await waiting()
    await rig.publish('x')
    expect(await first).toMatchObject({ events: [], cursor: at(1), gap: null })
  })

  it('says what kind of answer it is, and that nobody keeps it', async () => {
    await start()
    const answer = await ask('topic=a&timeout=0&device=kitchen')
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    expect(await answer.text()).toBe(`{"events":[],"cursor":"${at(0)}","gap":null,"device":"kitchen"}`)
    const head = await ask('topic=a&timeout=60', { method: 'HEAD' })
    expect([head.status, head.headers.get('content-type')]).toEqual([200, 'application/json; charset=utf-8'])
  })

  it('has no more events than it wants, and goes on after the last of them', async () => {
    await start()
    await publishMany(5, 'a')
    const first = await poll(`topic=a&cursor=${at(0)}&limit=2`)
    expect([payloads(first), first.cursor]).toEqual([['0', '1'], at(2)])
    expect(payloads(await poll(`topic=a&cursor=${first.cursor}&limit=1000`))).toEqual(['2', '3', '4'])
    const live = poll('topic=b&limit=2')
    await waiting()
    await publishMany(5, 'b')
    expect([payloads(await live), (await live).cursor]).toEqual([['0', '1'], at(7)])
    expect(payloads(await poll(`topic=b&cursor=${at(7)}`))).toEqual(['2', '3', '4'])
    expect(payloads(await poll('topic=a&last=2'))).toEqual(['3', '4'])
  })

  it('has what is retained and then the newest events, each once', async () => {
    await start()
    await rig.publish('a/state', 'old state', { retain: true })
    await publishMany(3, 'a/b')
    await rig.publish('a/new', 'new state', { retain: true })
    const { events } = await poll('topic=a/%23&last=2')
    expect(events.map(({ payload, retained = false }) => [payload, retained])).toEqual([
      ['old state', true],
      ['2', false],
      ['new state', false],
    ])
  })

  it('says what is missing, at once', async () => {
    await start({ maxEvents: 2 })
    await publishMany(5, 'a')
    const gap = { reason: 'evicted', cursor: at(1), resumes: at(3) }
    expect(await poll(`topic=a&cursor=${at(1)}`)).toMatchObject({ gap, cursor: at(5) })
    expect(await poll(`topic=none&cursor=${at(1)}`)).toMatchObject({ gap, events: [], cursor: at(5) })
    const foreign = `${'0'.repeat(15)}-5`
    expect((await poll(`topic=a&cursor=${foreign}`)).gap).toMatchObject({ reason: 'other-epoch', cursor: foreign })
    expect((await poll(`topic=a&cursor=${at(99)}`)).gap).toMatchObject({ reason: 'unknown' })
  })

  it.each([
    ['', 'topic'],
    ['topic=%23/a', 'topic'],
    ['topic=a&cursor=nonsense', 'cursor'],
    ['topic=a&limit=0', 'limit'],
    ['topic=a&limit=99999999999', 'limit'],
    ['topic=a&timeout=61', 'timeout'],
    ['topic=a&timeout=-1', 'timeout'],
    ['topic=a&handle=', 'handle'],
    ['topic=a&callback=cb', 'callback'],
  ])('says what is wrong with ?%s', async (query, parameter) => {
    await start()
    const answer = await ask(query)
    expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/problem+json'])
    expect(await answer.json()).toMatchObject({ parameter })
    expect(rig.limits.open).toBe(0)
  })

  it('is replaced by a newer one with its handle, and by no other', async () => {
    await start()
    const first = poll('topic=a&handle=h')
    const other = poll('topic=a&handle=i')
    const unnamed = poll('topic=a')
    await waiting(3)
    const second = poll('topic=a&handle=h')
    expect(await first).toMatchObject({ events: [], cursor: at(0) })
    await waiting(3)
    await rig.publish('a', 'x')
    for (const answered of [other, unnamed, second]) expect(payloads(await answered)).toEqual(['x'])
  })

  it('is not replaced by that of another user', async () => {
    await start({ config: { access: { jwt: { secret: '0'.repeat(32), audience: 'mqway' } } } })
    const pollAs = async (user: string) =>
      poll(`topic=a&handle=h&ticket=${(await rig.access.tickets.issue(identityOf(user, 'token'))).ticket}`)
    const both = [pollAs('ada'), pollAs('bob')]
    await waiting(2)
    await rig.publish('a', 'x')
    expect((await Promise.all(both)).map(payloads)).toEqual([['x'], ['x']])
  })

  it('leaves one open of ten thousand with one handle', async () => {
    await start({ config: { limits: { connectionsPerAddress: 2, requestsPerSecond: 'off' } } })
    const sockets = Array.from({ length: 20 }, () => rig.tcp())
    const get = 'GET /v1/poll?topic=a&handle=h HTTP/1.1\r\nHost: localhost\r\n\r\n'
    let [asked, answers] = [0, 0]
    const askNext = (socket: Socket): void => {
      if (asked++ < 10_000) socket.write(get)
    }
    for (const socket of sockets) {
      socket.on('data', (bytes: Buffer) => {
        answers += bytes.toString('latin1').match(/"events":\[\],/g)?.length ?? 0
        askNext(socket)
      })
      await once(socket, 'connect')
    }
    for (const socket of sockets) askNext(socket)
    // All but the last are answered.
    await eventually(() => answers === 9_999 && rig.hub.counters.subscribers === 1)
    expect(rig.limits.open).toBe(1)
  })

  it('leaves nothing behind when its client goes', async () => {
    await start()
    const abort = new AbortController()
    const asked = ask('topic=a&handle=h', { signal: abort.signal }).catch(() => 'gone')
    await waiting()
    abort.abort()
    expect(await asked).toBe('gone')
    await eventually(() => rig.hub.counters.subscribers === 0)
    expect([rig.limits.open, rig.attendances.every(({ left }) => left)]).toEqual([0, true])
  })

  it('is not told of to others while its device has no name to come back with', async () => {
    await start()
    const answer = await ask('topic=a&timeout=0')
    const { device } = JSON.parse(await answer.text())
    expect(rig.attendances).toEqual([])
    await ask(`topic=a&timeout=0&device=${device}`)
    expect(rig.attendances).toMatchObject([{ device, left: true }])
  })

  it('is present while it waits', async () => {
    await start()
    const asked = poll('topic=a&device=kitchen')
    await waiting()
    expect(rig.attendances).toMatchObject([{ device: 'kitchen', transport: 'poll', topics: ['a'], left: false }])
    await rig.publish('a')
    await asked
    expect(rig.attendances).toMatchObject([{ left: true }])
  })

  it('sends much that is retained in parts, to one who reads slowly too', async () => {
    await start()
    const payload = 'x'.repeat(100_000)
    await Promise.all(numbers(0, 60).map(number => rig.publish(`a/${number}`, payload, { retain: true })))
    const answer = await ask('topic=a/%23')
    await eventually(() => rig.hub.counters.delivered > 0)
    const body = (await answer.json()) as PollBody
    expect(body.events).toHaveLength(60)
    expect(new Set(body.events.map(({ topic }) => topic)).size).toBe(60)
    expect(body.events.every(event => event.payload === payload)).toBe(true)
    expect(body.cursor).toBe(at(60))
  })

  it('tells why when the hub lets go of it', async () => {
    await start()
    const asked = ask('topic=a')
    await waiting()
    rig.hub.close()
    const answer = await asked
    expect([answer.status, answer.headers.get('content-type'), answer.headers.get('retry-after')]).toEqual([
      503,
      'application/problem+json',
      '5',
    ])
    expect(await answer.json()).toMatchObject({ reason: 'shutting-down', status: 503 })
  })

  it('is answered when the gateway shuts down, and a new one refused', async () => {
    let polls = { close: () => {} }
    await start({
      register: (app, options) => {
        polls = registerPoll(app, options)
      },
    })
    const asked = poll('topic=a')
    await waiting()
    polls.close()
    expect(await asked).toMatchObject({ events: [], cursor: at(0) })
    expect((await ask('topic=a')).status).toBe(503)
  })

  it('works over HTTP/2', async () => {
    await start()
    const stream = rig.http2().request({ ':path': '/v1/poll?topic=a' })
    await waiting()
    await rig.publish('a', 'x')
    let text = ''
    for await (const chunk of stream.setEncoding('utf8')) text += chunk
    expect(payloads(JSON.parse(text))).toEqual(['x'])
  })

  it('loses and doubles nothing from one to the next while messages come', async () => {
    await start({ recent: { maxEvents: 16, maxBytes: 2 ** 20 } })
    const total = 300
    const publishing = (async () => {
      for (let index = 0; index < total; index++) {
        await rig.publish('a', String(index))
        if (index % 5 === 0) await new Promise(resolve => setImmediate(resolve))
      }
    })()
    const seen: unknown[] = []
    let cursor = at(0)
    while (seen.length < total) {
      const body = await poll(`topic=a&cursor=${cursor}&limit=7`)
      expect(body.events.length).toBeLessThanOrEqual(7)
      seen.push(...payloads(body))
      cursor = body.cursor
    }
    await publishing
    expect(seen).toEqual(numbers(0, total))
  })
})

describe('JSONP', () => {
  afterEach(() => rig.close())
  const withJsonp = { push: { jsonp: true } }

  it('is a script that calls a function with the answer', async () => {
    await start(withJsonp)
    await rig.publish('a', 'x\u2028</script>', { retain: true })
    const answer = await ask('topic=a&callback=app.on[0]')
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'application/javascript; charset=utf-8',
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
    const script = await answer.text()
    expect(script).toMatch(/^\/\*\*\/app\.on\[0\]\(\{.*\}\);$/)
    expect(script).not.toContain('\u2028')
    const calls: PollBody[] = []
    runInNewContext(script, { app: { on: [(body: PollBody) => calls.push(body)] } })
    expect(calls.map(payloads)).toEqual([['x\u2028</script>']])
  })

  it.each(['alert(1)', 'a;b', '<script>', '', 'x'.repeat(129), 'a\u2028b', 'a b'])(
    'calls nothing that is no name of a function: %s',
    async callback => {
      await start(withJsonp)
      const answer = await ask(`topic=a&timeout=0&callback=${encodeURIComponent(callback)}`)
      expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/problem+json'])
      expect(await answer.json()).toMatchObject({ parameter: 'callback' })
    },
  )

  it('gives any page only what everybody may have, whoever’s browser it runs in', async () => {
    await start({
      ...withJsonp,
      config: {
        access: {
          jwt: { secret: '0'.repeat(32), audience: 'mqway' },
          rules: [
            { to: 'anonymous', subscribe: ['public/#'] },
            { to: { user: 'ada' }, subscribe: ['#'] },
          ],
        },
      },
    })
    const ticket = async () => (await rig.access.tickets.issue(identityOf('ada', 'token'))).ticket
    expect((await ask(`topic=secret&timeout=0&ticket=${await ticket()}`)).status).toBe(200)
    expect((await ask(`topic=secret&timeout=0&callback=cb&ticket=${await ticket()}`)).status).toBe(403)
    expect((await ask(`topic=public/a&timeout=0&callback=cb&ticket=${await ticket()}`)).status).toBe(200)
  })

  it('is the same as JSON for any payload', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.boolean(), (text, json) => {
        const event = { id: 'i', sequence: 1, topic: text, time: 0, qos: 0, retained: false } as const
        const payload = Buffer.from(JSON.stringify(`\u2028${text}\u2029`))
        const body = pollEncoder({ json })({ ...event, payload }).subarray(1)
        const { start, end } = pollFormat('f')
        const script = `${start}${body}${end({ cursor: '', gap: undefined, isAll: true, device: 'd' })}`
        expect(script).not.toMatch(/[\u2028\u2029]/)
        const expected = JSON.parse(`[${pollEncoder({ json })({ ...event, payload }).subarray(1)}]`)
        expect(runInNewContext(script, { f: (answer: PollBody) => JSON.stringify(answer.events) })).toBe(
          JSON.stringify(expected),
        )
      }),
    )
  })
})
