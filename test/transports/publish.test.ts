import { SignJWT } from 'jose'
import { afterEach, describe, expect, it } from 'vitest'
import { RateLimits } from '../../src/access/rate-limits.js'
import { GatewayError } from '../../src/base/errors.js'
import type { Event } from '../../src/journal/event.js'
import type { Message } from '../../src/mqtt/message.js'
import type { ReceiptRequest, Receipts } from '../../src/receipts/receipts.js'
import type { Publisher } from '../../src/sources/publisher.js'
import type { SharedState } from '../../src/storage/shared-state.js'
import { type PublishRouteOptions, registerPublish } from '../../src/transports/publish.js'
import { readAll } from '../contracts/journal.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from './rig.js'

let rig: Rig

afterEach(() => rig.close())

/** What the journal gets is what the broker does: it is slow, or away, where a test says so. */
class TestPublisher implements Publisher {
  readonly connected = true
  readonly #append: (message: Message) => Promise<Event>
  /** Before each message is published. */
  before: (message: Message) => Promise<void> = async () => {}

  constructor(append: (message: Message) => Promise<Event>) {
    this.#append = append
  }

  async publish(message: Message): Promise<Event | undefined> {
    await this.before(message)
    return this.#append(message)
  }
}

interface StartOptions extends Partial<RigOptions> {
  readonly publish?: Partial<PublishRouteOptions>
  readonly asked?: { id: string; request: ReceiptRequest }[]
  /** Throws where there is none. */
  readonly receiptRoom?: (topic: string, by: string) => void
}

async function start({ publish, asked, receiptRoom, ...options }: StartOptions = {}): Promise<TestPublisher> {
  const publisher = new TestPublisher(message => rig.journal.append(message))
  const receipts: Receipts = {
    outstanding: { devices: 0, events: 0 },
    acknowledged: async () => false,
    record: async () => undefined,
    reserve: (topic, request, by) => {
      receiptRoom?.(topic, by)
      return { confirm: async ({ id }) => void asked?.push({ id, request }), cancel: () => {}, acknowledged: () => {} }
    },
    report: async () => undefined,
    topicOf: async () => undefined,
    close: async () => {},
  }
  rig = await startRig({
    register: (app, transport) => registerPublish(app, { ...transport, ...publish }),
    parts: { publisher, receipts },
    ...options,
  })
  return publisher
}

interface Answer {
  readonly id: string
  readonly ids: readonly string[]
  readonly detail: string
}

async function post(query: string, body?: string | Buffer, headers: Record<string, string> = {}) {
  const response = await fetch(`${rig.url}/v1/publish${query}`, { method: 'POST', headers, ...(body && { body }) })
  const { status, headers: answered } = response
  return { status, headers: answered, body: (await response.json()) as Answer }
}

/** The same state, whose changes take many iterations of the event loop. */
const slow = (state: SharedState): SharedState => ({
  exchange: usage => state.exchange(usage),
  collection: (name, bounds) => {
    const collection = state.collection(name, bounds)
    return {
      get: key => collection.get(key),
      set: async (...change) => {
        for (let ticks = 0; ticks < 1000; ticks++) await new Promise(setImmediate)
        return collection.set(...change)
      },
    }
  },
})

const json = (value: unknown, headers?: Record<string, string>) =>
  post('', JSON.stringify(value), { 'content-type': 'application/json', ...headers })

const journaled = async (): Promise<Event[]> => readAll(rig.journal, ['#', '$x/#'], 0)

const payloads = async (): Promise<string[]> => (await journaled()).map(({ payload }) => payload.toString())

describe('a message', () => {
  it('is the body as it is, whatever its type, and is answered with its id when it is in the journal', async () => {
    await start()
    const bytes = Buffer.from([0, 255, 10, 13, 0xe2])
    const answer = await post('?topic=/news/europe', bytes, { 'content-type': 'image/png' })
    const [event] = await journaled()
    expect(answer).toMatchObject({ status: 201, body: { id: event?.id } })
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(event).toMatchObject({ topic: '/news/europe', payload: bytes, qos: 1 })
  })

  it('has the QoS that is asked for, and may be retained, or take away what is', async () => {
    await start()
    await post('?topic=state&qos=2&retain=true', 'up')
    expect(await journaled()).toMatchObject([{ qos: 2 }])
    const retained = async (): Promise<Event[]> => {
      const all: Event[] = []
      for await (const some of rig.journal.retained(['#'], { after: 0, through: rig.journal.head })) all.push(...some)
      return all
    }
    expect(await retained()).toMatchObject([{ topic: 'state' }])
    expect((await post('?topic=state&retain=true')).status).toBe(201)
    expect(await retained()).toEqual([])
  })

  it('can be JSON that says its topic, with text, bytes or JSON as the payload', async () => {
    await start()
    const answers = [
      await json({ topic: 'a', payload: 'täxt' }),
      await json({ topic: 'a', payloadBase64: 'AP8=' }),
      await json({ topic: 'a', json: null, qos: 0 }),
      await json({ topic: '$x/y', json: { b: [1, 'ü'] } }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 201, 201])
    const events = await journaled()
    expect(events.map(({ payload }) => payload.toString('latin1'))).toEqual([
      Buffer.from('täxt').toString('latin1'),
      '\x00\xff',
      'null',
      Buffer.from('{"b":[1,"ü"]}').toString('latin1'),
    ])
    expect(answers.map(({ body }) => body)).toEqual(events.map(({ id }) => ({ id })))
  })

  it('has no id where push does not get its topic', async () => {
    rig = await startRig({
      register: registerPublish,
      parts: { publisher: { connected: true, publish: async () => undefined } },
    })
    expect(await post('?topic=a', 'x')).toMatchObject({ status: 201, body: { id: null } })
  })
})

describe('a batch', () => {
  it('is published in its order, and answered with all ids', async () => {
    await start()
    const messages = Array.from({ length: 1000 }, (_, index) => ({
      topic: 't',
      payload: String(index),
      qos: index % 3,
    }))
    const answer = await json({ messages })
    expect(answer.status).toBe(201)
    const events = await journaled()
    expect(answer.body).toEqual({ ids: events.map(({ id }) => id) })
    expect(await payloads()).toEqual(messages.map(({ payload }) => payload))
  })

  it('that fails in the middle says what was published, and has nothing behind that published', async () => {
    const publisher = await start()
    publisher.before = async ({ payload }) => {
      if (payload.toString() === '2') throw new GatewayError('broker-away')
    }
    const answer = await json({ messages: [0, 1, 2, 3].map(payload => ({ topic: 't', payload: String(payload) })) })
    const events = await journaled()
    expect(answer).toMatchObject({
      status: 503,
      body: { reason: 'broker-away', parameter: 'messages[2]', ids: events.map(({ id }) => id) },
    })
    expect(answer.headers.get('retry-after')).toBe('5')
    expect(await payloads()).toEqual(['0', '1'])
  })
})

describe('what is wrong is refused with its name, and nothing is published', () => {
  const good = { topic: 'a', payload: 'x' }
  it.each([
    ['?topic=%23', 'topic'],
    ['?topic=news/%2B', 'topic'],
    ['?topic=a%2Bb', 'topic'],
    ['?topic=$SYS/uptime', 'topic'],
    ['?topic=$SYS', 'topic'],
    ['?topic=$share/a/b', 'topic'],
    ['?topic=a%FF', 'topic'],
    ['?topic=', 'topic'],
    ['?topic=a%00b', 'topic'],
    ['?topic=a&topic=b', 'topic'],
    ['?topic=a&qos=3', 'qos'],
    ['?topic=a&retain=yes', 'retain'],
    ['?topic=a&receiptFrom=b', 'receiptWithin'],
    ['?topic=a&receiptWithin=10s', 'receiptFrom'],
    ['?topic=a&receiptFrom=b&receiptWithin=10', 'receiptWithin'],
    ['?topic=a&receiptFrom=%0a&receiptWithin=10s', 'receiptFrom[0]'],
  ])('in the query: %s', async (query, parameter) => {
    await start()
    const answer = await post(query, 'x')
    expect(answer).toMatchObject({ status: 400, body: { reason: 'invalid-parameter', parameter } })
    expect(answer.headers.get('content-type')).toBe('application/problem+json')
    expect(await journaled()).toEqual([])
  })

  it.each<[unknown, string]>([
    [{}, 'topic'],
    [null, ''],
    [[good], ''],
    [{ topic: 'a' }, 'payload'],
    [{ topic: 'a', payload: 'x', json: 1 }, 'payload'],
    [{ topic: 'a', payload: 1 }, 'payload'],
    [{ topic: 'a', payload: '\ud800' }, 'payload'],
    [{ topic: 'a\ud800', payload: '' }, 'topic'],
    [{ topic: 7, payload: '' }, 'topic'],
    [{ ...good, retained: true }, ''],
    [{ ...good, qos: '1' }, 'qos'],
    [{ ...good, retain: 1 }, 'retain'],
    [{ topic: 'a', payloadBase64: 'AP8' }, 'payloadBase64'],
    [{ topic: 'a', payloadBase64: 'A\nP8=' }, 'payloadBase64'],
    [{ ...good, receipt: { from: ['a'] } }, 'receipt.within'],
    [{ ...good, receipt: { from: 'all', within: '1s' } }, 'receipt.from'],
    [{ ...good, receipt: { from: [], within: '1s' } }, 'receipt.from'],
    [{ ...good, receipt: { from: Array(1001).fill('a'), within: '1s' } }, 'receipt.from'],
    [{ ...good, receipt: { from: 'present', within: '30d' } }, 'receipt.within'],
    [{ messages: [] }, 'messages'],
    [{ messages: good }, 'messages'],
    [{ messages: [good, good, { ...good, topic: 'a/#' }] }, 'messages[2].topic'],
    [{ messages: [good, { topic: 'b' }] }, 'messages[1].payload'],
    [{ messages: [good, 7] }, 'messages[1]'],
    [{ messages: [good], more: 1 }, ''],
  ])('in the body: %j', async (value, parameter) => {
    await start()
    const named = parameter === '' ? {} : { parameter }
    const { status, body } = await json(value)
    expect({ status, body }).toMatchObject({ status: 400, body: { reason: 'invalid-parameter', ...named } })
    if (parameter === '') expect(body).not.toHaveProperty('parameter')
    expect(await journaled()).toEqual([])
  })

  it.each(['', '{', '{"topic":"a","payload":"x"', 'topic=a', '"\xff"'])('no JSON: %j', async text => {
    await start()
    expect(await post('', Buffer.from(text, 'latin1'))).toMatchObject({
      status: 400,
      body: { reason: 'invalid-parameter', detail: 'The body must be JSON, in UTF-8' },
    })
  })

  it('JSON that is nested too deeply', async () => {
    await start()
    const body = `{"topic":"a","json":${'['.repeat(400_000)}${']'.repeat(400_000)}}`
    const detail = 'The JSON must not be nested deeper than 100 levels'
    expect(await post('', body)).toMatchObject({ status: 400, body: { detail } })
  })

  it('a batch of too many, before each is looked at', async () => {
    await start()
    const body = (more: number): string => `{"messages":[${'{},'.repeat(more)}{}]}`
    const detail = 'messages must have 1 to 1000 messages'
    expect(await post('', body(1000))).toMatchObject({ status: 400, body: { detail, parameter: 'messages' } })
    const values = 'The JSON must have at most 50000 values (limits.jsonValues)'
    expect(await post('', body(300_000))).toMatchObject({ status: 400, body: { detail: values } })
  })

  it('a body that is too large', async () => {
    await start({ config: { limits: { bodySize: '1KiB' } } })
    expect(await post('?topic=a', 'x'.repeat(1025))).toMatchObject({ status: 413, body: { reason: 'body-too-large' } })
    expect((await post('?topic=a', 'x'.repeat(1024))).status).toBe(201)
  })

  it('a topic with too many levels or bytes', async () => {
    await start()
    for (const topic of ['a/'.repeat(40), 'x'.repeat(5000)]) {
      const answer = await json({ messages: [good, { ...good, topic }] })
      expect(answer).toMatchObject({ status: 403, body: { reason: 'topic-refused', parameter: 'messages[1].topic' } })
      expect((await post(`?topic=${topic}`, 'x')).body).toMatchObject({ status: 403, parameter: 'topic' })
    }
    expect(await journaled()).toEqual([])
  })

  it('receipts of what push does not get, and so has no id', async () => {
    await start({ push: { topics: ['pushed/#'] } })
    const receipt = { from: ['a'], within: '1s' }
    const answer = await json({
      messages: [
        { ...good, topic: 'pushed/x', receipt },
        { ...good, receipt },
      ],
    })
    expect(answer).toMatchObject({ status: 400, body: { parameter: 'messages[1].receipt' } })
    const query = '?topic=a&receiptFrom=a&receiptWithin=1s'
    expect(await post(query, 'x')).toMatchObject({ status: 400, body: { parameter: 'receiptFrom' } })
    expect(await journaled()).toEqual([])
  })

  it.each([
    ['empty', ''],
    ['too long', 'x'.repeat(256)],
    ['not printable', 'ä'],
  ])('an Idempotency-Key that is %s', async (_how, key) => {
    await start()
    const answer = await post('?topic=a', 'x', { 'idempotency-key': key })
    expect(answer).toMatchObject({ status: 400, body: { parameter: 'Idempotency-Key' } })
  })

  it('other methods', async () => {
    await start()
    const answer = await fetch(`${rig.url}/v1/publish?topic=a`)
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST, OPTIONS'])
  })
})

describe('who publishes', () => {
  const secret = '0123456789abcdef0123456789abcdef'
  const authorization = async (user: string): Promise<{ authorization: string }> => {
    const exp = Math.floor(Date.now() / 1000) + 60
    const token = new SignJWT({ sub: user, exp }).setProtectedHeader({ alg: 'HS256' })
    return { authorization: `Bearer ${await token.sign(Buffer.from(secret))}` }
  }
  const startClosed = (publish: Partial<PublishRouteOptions> = {}): Promise<TestPublisher> => {
    const rules = [{ to: 'authenticated' as const, publish: ['%u/#'], subscribe: [] }]
    return start({ publish, config: { access: { jwt: { secret }, rules } } })
  }

  it('publishes to what the rules give, and a batch not at all where one topic is another’s', async () => {
    await startClosed()
    const ada = await authorization('ada')
    const message = (topic: string) => ({ topic, payload: 'x' })
    const answer = await json({ messages: [message('ada/x'), message('eve/x')] }, ada)
    expect(answer).toMatchObject({ status: 403, body: { reason: 'topic-refused', parameter: 'messages[1].topic' } })
    expect(answer.body.detail).toBe('This topic is not open to you: eve/x')
    expect(await json(message('eve/x'), ada)).toMatchObject({ status: 403, body: { parameter: 'topic' } })
    expect(await journaled()).toEqual([])
    expect((await json({ messages: [message('ada/x')] }, ada)).status).toBe(201)
  })

  it('is let in before any of the body is looked at', async () => {
    await startClosed()
    const answer = await post('?topic=%23', '{'.repeat(2 ** 21))
    expect(answer).toMatchObject({ status: 401, body: { reason: 'identity-required' } })
  })

  it('has a rate and keys of their own', async () => {
    await startClosed({ publishes: new RateLimits({ perSecond: 1, burst: 1, now: () => 0 }) })
    const key = { 'idempotency-key': 'k' }
    const [ada, eve] = [await authorization('ada'), await authorization('eve')]
    const answers = [
      await post('?topic=ada/x', 'x', { ...ada, ...key }),
      await post('?topic=ada/x', 'x', { ...ada, ...key }),
      await post('?topic=ada/x', 'x', ada),
      await post('?topic=eve/x', 'x', { ...eve, ...key }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 429, 201])
    expect((await journaled()).map(({ topic }) => topic)).toEqual(['ada/x', 'eve/x'])
  })

  it('is asked by browsers for pages of other origins', async () => {
    await start({ config: { push: { origins: ['https://a.example'] } } })
    const headers = { origin: 'https://a.example' }
    const preflight = await fetch(`${rig.url}/v1/publish`, { method: 'OPTIONS', headers })
    expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([
      204,
      'authorization, content-type, idempotency-key',
    ])
    expect((await post('?topic=a', 'x', headers)).status).toBe(201)
    expect(await post('?topic=a', 'x', { origin: 'https://b.example' })).toMatchObject({ status: 403 })
    expect(await payloads()).toEqual(['x'])
  })

  it('does so no faster than is allowed, on average', async () => {
    let now = 0
    const publishes = new RateLimits({ perSecond: 10, burst: 5, now: () => now })
    await start({ publish: { publishes } })
    expect((await json({ messages: Array(25).fill({ topic: 'a', payload: '' }) })).status).toBe(201)
    const answer = await post('?topic=a', 'x')
    expect(answer).toMatchObject({ status: 429, body: { reason: 'publishing-too-fast' } })
    expect(answer.headers.get('retry-after')).toBe('3')
    now += 2100
    expect((await post('?topic=a', 'x')).status).toBe(201)
  })

  it.each([
    ['too-many-receipts', 429, 'receiptFrom', 'messages[1].receipt'],
    ['receipts-full', 503, undefined, 'messages[1]'],
  ] as const)('is not published where its receipts cannot be waited for: %s', async (reason, status, single, part) => {
    const by: string[] = []
    await start({
      receiptRoom: (topic, name) => {
        by.push(name)
        if (topic === 'full') throw new GatewayError(reason)
      },
    })
    const first = await post('?topic=full&receiptFrom=b&receiptWithin=1m', 'x')
    expect(first).toMatchObject({ status, body: { reason, ...(single && { parameter: single }) } })
    expect(first.headers.get('retry-after')).toBe('10')
    const receipt = { from: ['b'], within: '1m' }
    const messages = ['room', 'full', 'room'].map(topic => ({ topic, payload: topic, receipt }))
    const second = await json({ messages })
    expect(second).toMatchObject({ status, body: { reason, parameter: part } })
    expect(second.body.ids).toHaveLength(1)
    expect(await payloads()).toEqual(['room'])
    expect(new Set(by)).toEqual(new Set(['address 127.0.0.1']))
  })

  it('may ask for receipts', async () => {
    const asked: { id: string; request: ReceiptRequest }[] = []
    await start({ asked })
    const raw = await post('?topic=a&receiptFrom=b&receiptFrom=c&receiptFrom=b&receiptWithin=10s', 'x')
    const present = await post('?topic=a&receiptFrom=present&receiptWithin=1m', 'x')
    const batch = await json({ messages: [{ topic: 'a', json: 1, receipt: { from: 'present', within: '500ms' } }] })
    expect(asked).toEqual([
      { id: raw.body.id, request: { from: ['b', 'c'], within: 10_000 } },
      { id: present.body.id, request: { from: 'present', within: 60_000 } },
      { id: batch.body.ids[0], request: { from: 'present', within: 500 } },
    ])
  })
})

describe('a request with an Idempotency-Key', () => {
  const key = { 'idempotency-key': 'k1' }

  it('is done once, and answered the same again', async () => {
    await start()
    const first = await post('?topic=a&ticket=1', 'x', key)
    const second = await post('?topic=a&ticket=2', 'x', key)
    expect([first.status, second.status, second.body]).toEqual([201, 201, first.body])
    expect([first, second].map(({ headers }) => headers.get('idempotency-replayed'))).toEqual([null, 'true'])
    const other = await post('?topic=a', 'x', { 'idempotency-key': 'k2' })
    expect(other.body.id).not.toBe(first.body.id)
    expect(await payloads()).toEqual(['x', 'x'])
  })

  it('is refused where it is another request', async () => {
    await start()
    await post('?topic=a', 'x', key)
    for (const [query, body] of [
      ['?topic=a', 'y'],
      ['?topic=b', 'x'],
      ['?topic=a&qos=0', 'x'],
    ] as const) {
      expect(await post(query, body, key)).toMatchObject({ status: 422, body: { reason: 'idempotency-mismatch' } })
    }
    expect(await payloads()).toEqual(['x'])
  })

  it('is told to come again while the first is under way', async () => {
    const publisher = await start()
    let go = (): void => {}
    const held = new Promise<void>(resolve => {
      publisher.before = () => {
        resolve()
        return new Promise(release => {
          go = release
        })
      }
    })
    const first = post('?topic=a', 'x', key)
    await held
    const second = await post('?topic=a', 'x', key)
    expect(second).toMatchObject({ status: 409, body: { reason: 'idempotency-busy' } })
    expect(second.headers.get('retry-after')).toBe('1')
    go()
    expect((await first).status).toBe(201)
    expect(await payloads()).toEqual(['x'])
  })

  it('waits for what is under way, however often it is sent again, and publishes it once', async () => {
    const publisher = await start({ publish: { answerTime: 20 } })
    let arrive = (): void => {}
    publisher.before = () =>
      new Promise(resolve => {
        arrive = resolve
      })
    const late = { status: 504, body: { reason: 'publish-timeout' } }
    expect(await post('?topic=a', 'x', key)).toMatchObject(late)
    expect(await post('?topic=a', 'x', key)).toMatchObject(late)
    expect(await post('?topic=a', 'y', key)).toMatchObject({ status: 422 })
    arrive()
    const answer = await post('?topic=a', 'x', key)
    expect(answer).toMatchObject({ status: 201, body: { id: (await journaled())[0]?.id } })
    expect((await post('?topic=a', 'x', key)).body).toEqual(answer.body)
    expect(await payloads()).toEqual(['x'])
  })

  it('asks for receipts of what comes late, and goes on with the batch when it is sent again', async () => {
    const asked: { id: string; request: ReceiptRequest }[] = []
    const publisher = await start({ asked, publish: { answerTime: 20 } })
    let arrive = (): void => {}
    publisher.before = ({ payload }) =>
      payload.toString() === '1'
        ? new Promise(resolve => {
            arrive = resolve
          })
        : Promise.resolve()
    const receipt = { from: ['b'], within: '1m' }
    const messages = ['0', '1', '2'].map(payload => ({ topic: 't', payload, receipt }))
    const broken = await json({ messages }, key)
    expect(broken).toMatchObject({ status: 504, body: { parameter: 'messages[1]' } })
    arrive()
    await eventually(() => asked.length === 2)
    expect(await payloads()).toEqual(['0', '1'])
    const whole = await json({ messages }, key)
    expect(whole.body.ids).toEqual((await journaled()).map(({ id }) => id))
    expect(asked.map(({ id }) => id)).toEqual(whole.body.ids)
    expect(await payloads()).toEqual(['0', '1', '2'])
  })

  it('publishes again what was under way and came to nothing', async () => {
    const publisher = await start({ publish: { answerTime: 20 } })
    let fail = (_error: Error): void => {}
    publisher.before = () =>
      new Promise((_, reject) => {
        fail = reject
      })
    expect((await post('?topic=a', 'x', key)).status).toBe(504)
    fail(new GatewayError('publish-timeout'))
    publisher.before = async () => {}
    // As after any other failure, it may be another message.
    expect((await post('?topic=a', 'y', key)).status).toBe(201)
    expect(await payloads()).toEqual(['y'])
  })

  it('goes on with a batch where that broke off', async () => {
    const publisher = await start()
    publisher.before = async ({ payload }) => {
      if (payload.toString() === '2') throw new GatewayError('journal-unavailable')
    }
    const messages = ['0', '1', '2', '3'].map(payload => ({ topic: 't', payload }))
    const broken = await json({ messages }, key)
    expect(broken).toMatchObject({ status: 503, body: { parameter: 'messages[2]' } })
    publisher.before = async () => {}
    const whole = await json({ messages }, key)
    expect([whole.status, whole.body.ids.slice(0, 2), whole.headers.get('idempotency-replayed')]).toEqual([
      201,
      broken.body.ids,
      null,
    ])
    expect(await payloads()).toEqual(['0', '1', '2', '3'])
    expect((await json({ messages }, key)).body).toEqual(whole.body)
  })

  it('can be sent again when nothing came of it', async () => {
    const publisher = await start()
    publisher.before = async () => {
      throw new GatewayError('broker-away')
    }
    expect(await post('?topic=a', 'x', key)).toMatchObject({ status: 503, body: { reason: 'broker-away' } })
    publisher.before = async () => {}
    expect((await post('?topic=a', 'y', key)).status).toBe(201)
    expect(await payloads()).toEqual(['y'])
  })

  it('that has failed can be sent to another gateway at once', async () => {
    const publisher = await start({
      register: (app, transport) => {
        registerPublish(app, { ...transport, state: slow(transport.state) })
        app.register(async scope => registerPublish(scope, transport), { prefix: '/other' })
      },
    })
    publisher.before = async () => {
      throw new GatewayError('broker-away')
    }
    const body = JSON.stringify({ messages: [{ topic: 't', payload: 'x' }] })
    const headers = { 'content-type': 'application/json', ...key }
    const send = (path: string) => fetch(`${rig.url}${path}/v1/publish`, { method: 'POST', headers, body })
    expect((await send('')).status).toBe(503)
    publisher.before = async () => {}
    expect((await send('/other')).status).toBe(201)
  })

  it.each([
    { how: 'each one stored', payloads: ['0', '1', '2'], holdTime: 0 },
    { how: 'with equal messages', payloads: ['x', 'x', 'x'], holdTime: 0 },
    { how: 'none stored', payloads: ['0', '1', '2'], holdTime: 200 },
  ])('is completed by another gateway where the first has ended, $how', async ({ payloads: texts, holdTime }) => {
    const asked: { id: string; request: ReceiptRequest }[] = []
    const publisher = await start({
      asked,
      register: (app, transport) => {
        const options = { ...transport, idempotency: { holdTime } }
        registerPublish(app, options)
        app.register(async scope => registerPublish(scope, options), { prefix: '/other' })
      },
    })
    let count = 0
    let end = (): void => {}
    publisher.before = () =>
      ++count === 3
        ? new Promise((_, reject) => {
            end = () => reject(new GatewayError('broker-away'))
          })
        : Promise.resolve()
    const receipt = { from: ['b'], within: '1m' }
    const body = JSON.stringify({ messages: texts.map(payload => ({ topic: 't', payload, receipt })) })
    const headers = { 'content-type': 'application/json', ...key }
    const send = (path: string) => fetch(`${rig.url}${path}/v1/publish`, { method: 'POST', headers, body })
    const first = send('')
    await eventually(() => count === 3)
    let response = await send('/other')
    while (response.status === 409) response = await send('/other')
    expect(response.status).toBe(201)
    expect(await payloads()).toEqual(texts)
    const { ids } = (await response.json()) as Answer
    expect(ids).toEqual((await journaled()).map(({ id }) => id))
    expect([...new Set(asked.map(({ id }) => id))]).toEqual(ids)
    end()
    expect((await first).status).toBe(503)
    expect((await (await send('')).json()) as Answer).toEqual({ ids })
  })
})
