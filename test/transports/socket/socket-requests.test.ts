import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/base/errors.js'
import type { ConfigInput } from '../../../src/config/schema.js'
import { FilterQuota } from '../../../src/hub/filter-quota.js'
import { formatId } from '../../../src/journal/event.js'
import { encodeProperties } from '../../../src/mqtt/properties.js'
import type { Receipt, ReceiptRequest, Receipts } from '../../../src/receipts/receipts.js'
import { People } from '../../helpers/people.js'
import { eventually } from '../../helpers/wait.js'
import { startSocketRig, type TestSocket } from '../socket-rig.js'

let people: People
beforeAll(async () => {
  people = await People.start()
})
afterAll(() => people.stop())

/** Whoever has a token may do what it says. */
const tokens = (): ConfigInput => ({
  access: { jwt: { secret: people.secret, audience: 'mqway', clockTolerance: '0ms' } },
})

const rights = (subscribe: string[], publish: string[] = []) => ({ mqtt: { subscribe, publish } })

const bearer = async (claims: Record<string, unknown>) => ({
  headers: { authorization: `Bearer ${await people.token(claims)}` },
})

/** Receipts in memory, of events that the test names. */
function receiptsOf(topics: Map<string, string>) {
  const recorded = new Map<string, Omit<Receipt, 'time'>>()
  const requested: [string, ReceiptRequest][] = []
  const receipts: Receipts = {
    outstanding: { devices: 0, events: 0 },
    acknowledged: async () => false,
    record: async (id, receipt) => {
      recorded.set(id, receipt)
      return { receipt: { ...receipt, time: 0 }, fresh: true }
    },
    reserve: (_topic, request) => ({
      confirm: async ({ id }) => void requested.push([id, request]),
      cancel: () => {},
      acknowledged: () => {},
    }),
    report: async () => undefined,
    topicOf: async id => topics.get(id),
    close: async () => {},
  }
  return { receipts, recorded, requested }
}

const live = async (socket: TestSocket): Promise<TestSocket> => {
  await socket.next('live')
  return socket
}

describe('filters of a socket', () => {
  it('are refused where its user or address has its share of all, which it has until it unsubscribes', async () => {
    const rig = await startSocketRig({ parts: { filterQuota: new FilterQuota(4000) } })
    const socket = await live(await rig.connect())
    const other = await live(await rig.connect())
    expect(await socket.ask({ type: 'subscribe', topics: ['a', 'b', 'c'] })).toMatchObject({ type: 'ok' })
    expect(await other.ask({ type: 'subscribe', topics: ['d'] })).toMatchObject({ reason: 'filters-too-many' })
    expect(await socket.ask({ type: 'unsubscribe', topics: ['a', 'b'] })).toMatchObject({ type: 'ok' })
    expect(await other.ask({ type: 'subscribe', topics: ['d'] })).toMatchObject({ type: 'ok', topics: ['d'] })
  })

  it('are counted in levels and characters, too, and what is too much changes nothing', async () => {
    const rig = await startSocketRig({ config: { limits: { topicLevels: 100, topicLength: '60KiB' } } })
    const socket = await live(await rig.connect())
    const deep = (from: number) => Array.from({ length: 100 }, (_, index) => `${from + index}${'/a'.repeat(99)}`)
    expect(await socket.ask({ type: 'subscribe', topics: deep(0) })).toMatchObject({ type: 'ok' })
    expect(await socket.ask({ type: 'subscribe', topics: ['one'] })).toMatchObject({
      ...{ type: 'error', status: 400, parameter: 'topics' },
      detail: 'topics must not have more than 10000 levels in all',
    })
    expect(await socket.ask({ type: 'unsubscribe', topics: deep(0) })).toMatchObject({ topics: [] })
    const long = Array.from({ length: 5 }, (_, index) => `${index}${'x'.repeat(60_000)}`)
    expect(await socket.ask({ type: 'subscribe', topics: long })).toMatchObject({
      detail: 'topics must not have more than 262144 characters in all',
    })
    expect(await socket.ask({ type: 'subscribe', topics: long.slice(1) })).toMatchObject({ topics: long.slice(1) })
  })

  it('change as fast as requests may come, and not faster; nobody else loses anything', async () => {
    const rig = await startSocketRig({ config: { limits: { requestsPerSecond: 1, requestsBurst: 20 } } })
    const [greedy, other] = [await live(await rig.connect()), await live(await rig.connect('?topic=a'))]
    const many = Array.from({ length: 100 }, (_, index) => `many/${index}`)
    const answers = []
    for (let round = 0; round < 20; round++) {
      answers.push(await greedy.ask({ type: 'subscribe', topics: many }))
      answers.push(await greedy.ask({ type: 'unsubscribe', topics: many }))
      await rig.publish('a', String(round))
    }
    const done = answers.filter(({ type }) => type === 'ok').length
    // Each is like two of twenty.
    expect(done).toBeGreaterThan(9)
    const refused = answers.filter(({ type }) => type === 'error')
    expect([refused.length, refused.length > 0]).toEqual([40 - done, true])
    expect(refused[0]).toMatchObject({ status: 429, reason: 'too-many-requests', retryAfter: expect.any(Number) })
    await other.next('event')
    await eventually(() => other.events.length === 20)
    expect(other.payloads()).toEqual(Array.from({ length: 20 }, (_, index) => String(index)))
  })

  it('come, with what is retained on them, and go', async () => {
    const rig = await startSocketRig()
    await rig.publish('a/1', 'state a', { retain: true })
    await rig.publish('b/1', 'state b', { retain: true })
    const socket = await live(await rig.connect('?topic=a/%23'))
    expect(await socket.ask({ type: 'subscribe', topics: ['b/+', '+/1', 'a/#'] })).toEqual({
      ...{ type: 'ok', ref: 1, topics: ['a/#', 'b/+', '+/1'] },
    })
    await socket.next('live')
    expect(socket.payloads()).toEqual(['state a', 'state b'])
    await rig.publish('b/1', 'once')
    await eventually(() => socket.events.length === 3)
    expect(rig.attendances[0]?.topics).toEqual([`socket/${socket.id}/out`, 'a/#', 'b/+', '+/1'])
    expect(await socket.ask({ type: 'unsubscribe', topics: ['+/1', 'b/+', 'never'] })).toMatchObject({
      topics: ['a/#'],
    })
    await rig.publish('b/1', 'not wanted')
    await rig.publish('a/2', 'wanted')
    await eventually(() => socket.events.length === 4)
    expect(socket.payloads().slice(2)).toEqual(['once', 'wanted'])
    expect(rig.attendances[0]?.topics).toEqual([`socket/${socket.id}/out`, 'a/#'])
  })

  it('come with what they missed since a cursor, or with a gap that names them', async () => {
    const rig = await startSocketRig()
    const { id } = await rig.publish('t', '1')
    await rig.publish('t', '2')
    const socket = await live(await rig.connect())
    await socket.ask({ type: 'subscribe', topics: ['t'], cursor: id })
    await socket.next('live')
    expect(socket.payloads()).toEqual(['2'])
    await socket.ask({ type: 'subscribe', topics: ['u'], cursor: 'lost' })
    const resumes = formatId(rig.journal.epoch, 0)
    expect(await socket.next('gap')).toEqual({ type: 'gap', reason: 'unknown', cursor: 'lost', resumes, topics: ['u'] })
  })

  it('are no more than a thousand', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    for (let round = 0; round < 10; round++) {
      const topics = Array.from({ length: 100 }, (_, index) => `t/${round}/${index}`)
      expect(await socket.ask({ type: 'subscribe', topics })).toMatchObject({ type: 'ok' })
    }
    expect(await socket.ask({ type: 'subscribe', topics: ['one/more'] })).toMatchObject({
      ...{ type: 'error', status: 400, parameter: 'topics' },
    })
    expect(await socket.ask({ type: 'subscribe', topics: ['t/0/0'] })).toMatchObject({ type: 'ok' })
  })

  it('need a rule, and so does what is published; the connection goes on', async () => {
    const rig = await startSocketRig({ config: tokens() })
    const socket = await rig.connect('?topic=mine/a', await bearer(rights(['mine/#'], ['mine/out'])))
    expect(await socket.ask({ type: 'subscribe', topics: ['mine/b', 'yours'] })).toEqual({
      ...{ type: 'error', ref: 1, status: 403, title: 'Forbidden', reason: 'topic-refused', parameter: 'topics[1]' },
      detail: 'This topic is not open to you: yours',
    })
    expect(await socket.ask({ type: 'publish', topic: 'yours', payload: '' })).toMatchObject({
      ...{ type: 'error', status: 403, reason: 'topic-refused', parameter: 'topic' },
    })
    expect(await socket.ask({ type: 'publish', topic: 'mine/out', payload: 'x' })).toMatchObject({ type: 'ok' })
    expect(await socket.ask({ type: 'unsubscribe', topics: ['none'] })).toMatchObject({ topics: ['mine/a'] })
    expect(socket.told[0]?.['device']).toBe('alice')
  })
})

describe('the own topics of a socket', () => {
  it('need no rule: what anybody publishes to out comes, and send publishes to in', async () => {
    const rig = await startSocketRig({ config: tokens() })
    const socket = await live(await rig.connect('', await bearer(rights([]))))
    await rig.publish(`socket/${socket.id}/out`, 'for you')
    expect(await socket.next('event')).toMatchObject({ topic: `socket/${socket.id}/out`, payload: 'for you' })
    const given = { contentType: 'a/b', userProperties: [['a', 'b'] as const] }
    const { id } = await socket.ask({ type: 'send', json: { a: 1 }, qos: 2, ...given })
    const { events } = await rig.journal.read({ after: 1, through: 2, limit: 10, maxBytes: 1000 })
    const properties = encodeProperties(given)
    expect(events).toMatchObject([{ id, topic: `socket/${socket.id}/in`, qos: 2, properties }])
    expect(String(events[0]?.payload)).toBe('{"a":1}')
    const out = `socket/${socket.id}/out`
    expect(await socket.ask({ type: 'unsubscribe', topics: [out] })).toMatchObject({ type: 'ok', topics: [] })
    expect(await socket.ask({ type: 'subscribe', topics: [out] })).toMatchObject({ type: 'ok', topics: [] })
    await rig.publish(out, 'still for you')
    expect(await socket.next('event')).toMatchObject({ payload: 'still for you' })
  })

  it('are nobody else’s', async () => {
    const rig = await startSocketRig({ config: tokens() })
    const mine = await rig.connect('', await bearer(rights(['news'])))
    const other = await rig.connect('', await bearer(rights(['news'])))
    for (const topics of [[`socket/${mine.id}/out`], [`socket/${mine.id}/in`], ['socket/#'], ['#'], ['+/+/out']]) {
      expect(await other.ask({ type: 'subscribe', topics })).toMatchObject({ status: 403 })
    }
    for (const topic of [`socket/${mine.id}/out`, `socket/${mine.id}/in`, `socket/${other.id}/out`]) {
      expect(await other.ask({ type: 'publish', topic, payload: '' })).toMatchObject({ status: 403 })
    }
  })
})

describe('what a socket publishes', () => {
  it('is answered with its id once it is in the journal, and comes to others', async () => {
    const rig = await startSocketRig()
    const socket = await live(await rig.connect('?topic=t'))
    const answers = await Promise.all([
      socket.ask({ type: 'publish', topic: 't', payload: 'ä' }),
      socket.ask({ type: 'publish', topic: 't', payloadBase64: '/w==', qos: 0, retain: true }),
      socket.ask({ type: 'publish', topic: 't', json: [null] }),
    ])
    await eventually(() => socket.events.length === 3)
    expect(socket.events.map(event => event['id'])).toEqual(answers.map(answer => answer['id']))
    expect(socket.events).toMatchObject([{ payload: 'ä' }, { payloadBase64: '/w==' }, { payload: '[null]' }])
  })

  it('asks for receipts, where push gets the topic', async () => {
    const { receipts, requested } = receiptsOf(new Map())
    const rig = await startSocketRig({ parts: { receipts }, push: { topics: ['t/#'] } })
    const socket = await rig.connect()
    const receipt = { from: ['a', 'b'], within: '10s' }
    const { id } = await socket.ask({ type: 'publish', topic: 't/1', payload: '', receipt })
    expect(requested).toEqual([[id, { from: ['a', 'b'], within: 10_000 }]])
    expect(await socket.ask({ type: 'publish', topic: 'u', payload: '', receipt })).toMatchObject({
      ...{ status: 400, parameter: 'receipt' },
    })
  })

  it('is refused beyond its rate, with the time to wait, and not taken down', async () => {
    const rig = await startSocketRig({ socket: { publishes: { perSecond: 0.5, burst: 3 } } })
    const socket = await rig.connect()
    const answers = await Promise.all(Array.from({ length: 5 }, () => socket.ask({ type: 'send', payload: '' })))
    expect(answers.map(({ type }) => type)).toEqual(['ok', 'ok', 'ok', 'error', 'error'])
    expect(answers[4]).toMatchObject({ status: 429, reason: 'publishing-too-fast', retryAfter: 2 })
    const other = await rig.connect()
    expect(await other.ask({ type: 'send', payload: '' })).toMatchObject({ type: 'ok' })
    expect(await socket.ask({ type: 'subscribe', topics: ['t'] })).toMatchObject({ type: 'ok' })
  })

  it('is refused while the broker is away, and that is not the client’s fault', async () => {
    const publisher = {
      connected: false,
      publish: async () => {
        throw new GatewayError('broker-away')
      },
    }
    const rig = await startSocketRig({ parts: { publisher } })
    const socket = await rig.connect()
    for (let left = 150; left > 0; left--) socket.send({ type: 'send', payload: '' })
    expect(await socket.ask({ type: 'publish', topic: 't', payload: '' })).toMatchObject({
      ...{ status: 503, reason: 'broker-away', retryAfter: 5 },
    })
    expect(socket.closed).toBeUndefined()
  })

  it('does not pile up: only so much is under way at a time, and the rest is not even read', async () => {
    let [underWay, most] = [0, 0]
    let letGo = (): void => {}
    const gate = new Promise<void>(resolve => {
      letGo = resolve
    })
    const publisher = {
      connected: true,
      publish: async () => {
        most = Math.max(most, ++underWay)
        await gate
        underWay--
        return undefined
      },
    }
    const rig = await startSocketRig({ parts: { publisher } })
    const socket = await rig.connect()
    const payload = 'x'.repeat(1000)
    for (let ref = 1; ref <= 10_000; ref++) socket.send({ type: 'send', payload, ref })
    await eventually(() => most === 64)
    // The client has more to send than the buffers of the kernel hold.
    expect(socket.webSocket.bufferedAmount).toBeGreaterThan(100_000)
    letGo()
    await eventually(() => socket.told.length >= 10_000)
    await eventually(() => socket.told.at(-1)?.['ref'] === 10_000)
    expect(most).toBe(64)
  }, 30_000)
})

describe('receipts of a socket', () => {
  it('are kept under its device, for events that it may read', async () => {
    const id = (sequence: number) => formatId('0'.repeat(15), sequence)
    const { receipts, recorded } = receiptsOf(
      new Map([
        [id(1), 'mine/1'],
        [id(2), 'yours/1'],
      ]),
    )
    const rig = await startSocketRig({ config: tokens(), parts: { receipts } })
    const socket = await rig.connect('', await bearer({ ...rights(['mine/#']), device: 'tablet' }))
    const receipt = { type: 'receipt', id: id(1), status: 'failed', detail: 'no paper' }
    expect(await socket.ask(receipt)).toEqual({
      ...{ type: 'ok', ref: 1, id: id(1), device: 'tablet', user: 'alice', status: 'failed', detail: 'no paper' },
      time: '1970-01-01T00:00:00.000Z',
    })
    expect(recorded.get(id(1))).toEqual({ device: 'tablet', user: 'alice', status: 'failed', detail: 'no paper' })
    expect(await socket.ask({ ...receipt, id: id(2) })).toMatchObject({ status: 403, parameter: 'id' })
    expect(await socket.ask({ ...receipt, id: id(3) })).toMatchObject({ status: 404, parameter: 'id' })
    expect(await socket.ask({ ...receipt, id: 'x' })).toMatchObject({ status: 400, parameter: 'id' })
    expect(await socket.ask({ ...receipt, status: 'seen' })).toMatchObject({ status: 400, parameter: 'status' })
    expect(await socket.ask({ ...receipt, detail: 'ä'.repeat(513) })).toMatchObject({
      status: 400,
      parameter: 'detail',
    })
  })
})

describe('who a socket is from', () => {
  const expiring = (seconds: number) => ({ exp: Math.floor(Date.now() / 1000) + seconds })

  it('ends it when that holds no longer, unless it is said anew', async () => {
    const rig = await startSocketRig({ config: tokens() })
    const short = { ...rights(['t']), ...expiring(2) }
    const [renewed, forgotten] = [
      await rig.connect('?topic=t', await bearer(short)),
      await rig.connect('', await bearer(short)),
    ]
    const later = expiring(60)
    const token = await people.token({ ...rights(['t']), ...later })
    expect(await renewed.ask({ type: 'authenticate', token })).toEqual({
      ...{ type: 'ok', ref: 1, expires: new Date(later.exp * 1000).toISOString() },
    })
    await eventually(() => forgotten.closed !== undefined)
    expect(forgotten.told.at(-1)).toMatchObject({ type: 'end', reason: 'identity-expired' })
    expect(forgotten.closed?.code).toBe(1008)
    expect(await renewed.ask({ type: 'unsubscribe', topics: ['x'] })).toMatchObject({ type: 'ok' })
  })

  it('stays what it was where what is said is of somebody else, or is not right', async () => {
    const rig = await startSocketRig({ config: tokens() })
    const socket = await rig.connect('?topic=t', await bearer(rights(['t'])))
    const mallory = await people.token({ sub: 'mallory', ...rights(['#']) })
    expect(await socket.ask({ type: 'authenticate', token: mallory })).toMatchObject({ reason: 'identity-refused' })
    expect(await socket.ask({ type: 'authenticate', token: 'nonsense' })).toMatchObject({ reason: 'identity-refused' })
    expect(await socket.ask({ type: 'subscribe', topics: ['u'] })).toMatchObject({ status: 403 })
    expect(await socket.ask({ type: 'subscribe', topics: ['t'] })).toMatchObject({ type: 'ok' })
  })

  it('says what it may do from then on: what follows at once counts already, and filters that are lost end', async () => {
    const rig = await startSocketRig({ config: tokens() })
    const socket = await live(await rig.connect('?topic=a&topic=b', await bearer(rights(['a', 'b']))))
    const token = await people.token(rights(['b', 'c']))
    socket.send({ type: 'authenticate', token })
    expect(await socket.ask({ type: 'subscribe', topics: ['c'] })).toMatchObject({ type: 'ok', topics: ['b', 'c'] })
    expect(await socket.next('error')).toMatchObject({ reason: 'topic-refused', topics: ['a'] })
    await rig.publish('a', 'lost')
    await rig.publish('c', 'new')
    expect(await socket.next('event')).toMatchObject({ payload: 'new' })
    expect(rig.attendances[0]?.topics).toEqual([`socket/${socket.id}/out`, 'b', 'c'])
  })

  it('ends it where filters are lost while what is there is still being read for them', async () => {
    const rig = await startSocketRig({ config: tokens() })
    for (let left = 3000; left > 0; left--) void rig.publish('a', 'x'.repeat(5000))
    const { id } = await rig.publish('a', 'last')
    const cursor = formatId(rig.journal.epoch, 0)
    const socket = await rig.connect(`?topic=a&cursor=${cursor}`, await bearer(rights(['a'])))
    socket.webSocket.pause()
    const token = await people.token(rights(['b']))
    socket.send({ type: 'authenticate', token })
    await eventually(() => rig.hub.counters.subscribers === 0)
    socket.webSocket.resume()
    await eventually(() => socket.closed !== undefined)
    expect(socket.told.at(-1)).toMatchObject({ type: 'end', reason: 'topic-refused' })
    expect(socket.events.at(-1)?.['id']).not.toBe(id)
  })
})

describe('messages that are not right', () => {
  it.each([
    ['not json', undefined, '', 'The message must be JSON'],
    ['[]', undefined, '', 'The message must be a JSON object'],
    ['null', undefined, '', 'The message must be a JSON object'],
    ['{"ref":7}', 7, 'type', 'type must be subscribe, unsubscribe, publish, send, receipt or authenticate'],
    [
      '{"type":"dance","ref":"a"}',
      'a',
      'type',
      'type must be subscribe, unsubscribe, publish, send, receipt or authenticate',
    ],
    ['{"type":"subscribe","ref":7}', 7, 'topics', 'topics must be a list of 1 to 100 topic filters'],
    ['{"type":"subscribe","topics":[]}', undefined, 'topics', 'topics must be a list of 1 to 100 topic filters'],
    [
      '{"type":"subscribe","topics":["a","b#"]}',
      undefined,
      'topics[1]',
      'topics[1] must have # alone in its level, as in news/#',
    ],
    ['{"type":"subscribe","topics":["a"],"cursor":1}', undefined, 'cursor', undefined],
    ['{"type":"subscribe","topics":["a"],"more":1}', undefined, '', 'The message has no member more'],
    ['{"type":"subscribe","topics":["a"],"__proto__":1}', undefined, '', undefined],
    ['{"type":"unsubscribe","topics":[1]}', undefined, 'topics[0]', undefined],
    [
      '{"type":"publish","topic":"a/+","payload":""}',
      undefined,
      'topic',
      'topic must be the name of one topic, without the wildcards + and #',
    ],
    ['{"type":"publish","topic":"$SYS/x","payload":""}', undefined, 'topic', undefined],
    [
      '{"type":"publish","topic":"a"}',
      undefined,
      'payload',
      'payload or payloadBase64 or json must be there, one of them',
    ],
    ['{"type":"publish","topic":"a","payload":"","json":1}', undefined, 'payload', undefined],
    ['{"type":"publish","topic":"a","payloadBase64":"?"}', undefined, 'payloadBase64', undefined],
    ['{"type":"publish","topic":"a","payload":"","qos":3}', undefined, 'qos', 'qos must be 0, 1 or 2'],
    [
      '{"type":"publish","topic":"a","payload":"","receipt":{"from":"all","within":"10s"}}',
      undefined,
      'receipt.from',
      undefined,
    ],
    ['{"type":"send","topic":"a","payload":""}', undefined, '', 'The message has no member topic'],
    ['{"type":"authenticate","token":""}', undefined, 'token', undefined],
    [
      '{"type":"send","payload":"","ref":{}}',
      undefined,
      'ref',
      'ref must be a string of at most 256 characters, or a number',
    ],
    ['{"type":"send","payload":"","ref":1e999}', undefined, 'ref', undefined],
    [`{"type":"send","payload":"","ref":"${'r'.repeat(257)}"}`, undefined, 'ref', undefined],
  ])('%s', async (text, ref, parameter, detail) => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    socket.send(text)
    const error = await socket.next('error')
    expect(error).toMatchObject({ type: 'error', status: 400, reason: 'invalid-parameter' })
    expect(error['parameter']).toBe(parameter === '' ? undefined : parameter)
    expect(error['ref']).toBe(ref)
    if (detail !== undefined) expect(error['detail']).toBe(detail)
    expect(await socket.ask({ type: 'send', payload: '' })).toMatchObject({ type: 'ok' })
  })

  it.each([
    ['json', '{"type":"publish","topic":"a","json":'],
    ['topics[0]', '{"type":"subscribe","topics":['],
    ['ref', '{"type":"send","payload":"","ref":'],
  ])('have no bottom in %s', async (where, begin) => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    const depth = 200_000
    const end = where === 'topics[0]' ? ']}' : '}'
    socket.send(`${begin}${'['.repeat(depth)}${']'.repeat(depth)}${end}`)
    const detail = 'The JSON must not be nested deeper than 100 levels'
    expect(await socket.next('error')).toEqual({
      type: 'error',
      status: 400,
      title: 'Bad Request',
      reason: 'invalid-parameter',
      detail,
    })
    expect(await socket.ask({ type: 'send', payload: '' })).toMatchObject({ type: 'ok' })
  })

  it('are binary', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    socket.webSocket.send(Buffer.from('{}'))
    expect(await socket.next('error')).toMatchObject({ detail: 'The message must be text' })
  })

  it('end a connection when a hundred of them come in a row, and not before', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    for (let left = 99; left > 0; left--) socket.send('nonsense')
    expect(await socket.ask({ type: 'send', payload: '' })).toMatchObject({ type: 'ok' })
    for (let left = 100; left > 0; left--) socket.send('nonsense')
    await eventually(() => socket.closed !== undefined)
    expect(socket.closed?.code).toBe(1008)
    expect(socket.told.at(-1)).toMatchObject({ type: 'end', reason: 'too-many-errors' })
    expect(socket.told.filter(({ type }) => type === 'error')).toHaveLength(199)
  })

  it('are too large, and nobody else loses anything', async () => {
    const rig = await startSocketRig()
    const other = await live(await rig.connect('?topic=t'))
    const socket = await rig.connect()
    socket.send({ type: 'publish', topic: 't', payload: 'x'.repeat(16 * 1024 ** 2) })
    await eventually(() => socket.closed !== undefined)
    expect(socket.closed?.code).toBe(1009)
    await rig.log.line(/larger than this endpoint takes/)
    await rig.publish('t', 'after')
    expect(await other.next('event')).toMatchObject({ payload: 'after' })
    expect(rig.options.bodies.budget.used).toBe(0)
  })

  it('are more than one address may have on their way together', async () => {
    const rig = await startSocketRig({ config: { limits: { bodySize: '64KiB' } } })
    // Frames that say that they are long, and never end.
    const begun = Buffer.concat([Buffer.from([0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0]), Buffer.alloc(60_000, 'x')])
    const sockets = await Promise.all(Array.from({ length: 30 }, () => rig.connect()))
    for (const { webSocket } of sockets) {
      const { _socket: raw } = webSocket as unknown as { _socket: NodeJS.WritableStream }
      raw.write(begun)
    }
    await eventually(() => sockets.filter(({ closed }) => closed !== undefined).length >= 20)
    const ended = sockets.filter(({ closed }) => closed !== undefined)
    for (const { told, closed } of ended) {
      expect(closed?.code).toBe(1013)
      expect(told.at(-1)).toMatchObject({ type: 'end', reason: 'bodies-too-many-from-address' })
    }
    expect(ended.length).toBeLessThan(25)
    for (const { webSocket } of sockets) webSocket.terminate()
    await eventually(() => rig.options.bodies.budget.used === 0)
  })

  it('are not complete in time', async () => {
    const rig = await startSocketRig({ config: { limits: { bodyTimeout: '1s' } } })
    const socket = await rig.connect()
    socket.webSocket.send('{"type":', { fin: false })
    await eventually(() => socket.closed !== undefined)
    expect(socket.closed?.code).toBe(1008)
    expect(socket.told.at(-1)).toMatchObject({ type: 'end', reason: 'message-timeout' })
  })

  it('whatever they are, are answered one by one, and nobody else loses anything', async () => {
    const rig = await startSocketRig()
    const other = await live(await rig.connect('?topic=t'))
    const member = fc.constantFrom(
      'type',
      'ref',
      'topics',
      'topic',
      'payload',
      'qos',
      'id',
      'status',
      'token',
      'cursor',
      'receipt',
    )
    const type = fc.constantFrom('subscribe', 'unsubscribe', 'publish', 'send', 'receipt', 'authenticate')
    const value = fc.oneof(fc.jsonValue(), fc.string(), fc.array(fc.string()), type)
    const message = fc
      .tuple(type, fc.array(fc.tuple(member, value), { maxLength: 5 }))
      .map(([type, members]) => JSON.stringify(Object.fromEntries([['type', type], ...members])))
    const anything = fc.oneof(message, fc.json(), fc.string({ unit: 'binary' }))
    let answered = 0
    let told = 0
    await fc.assert(
      fc.asyncProperty(fc.array(anything, { maxLength: 60 }), async texts => {
        const socket = await rig.connect()
        for (const text of texts) socket.send(text)
        const last = randomBytes(8).toString('hex')
        expect(await socket.ask({ type: 'publish', topic: 't', payload: last })).toMatchObject({ type: 'ok' })
        await eventually(() => other.payloads().at(-1) === last)
        const answers = socket.told.filter(({ type }) => type === 'ok' || type === 'error')
        expect(answers).toHaveLength(texts.length + 1)
        answered += answers.filter(({ type }) => type === 'ok').length
        told += texts.length
        await socket.close()
      }),
      { numRuns: Number(process.env['FUZZ_RUNS'] ?? 100) },
    )
    expect(told).toBeGreaterThan(300)
    expect(answered).toBeGreaterThan(50)
  }, 60_000)
})
