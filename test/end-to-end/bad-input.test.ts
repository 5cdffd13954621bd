import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, get } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { ask, type Question } from '../helpers/asking.js'
import { type EventClient, type Listen, pushTransports, type Urls } from '../helpers/event-clients.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { eventually } from '../helpers/wait.js'

/*
 * What is wrong is told so, by what is wrong with it; and somebody who only listens never notices.
 */

async function listenEverywhere(urls: Urls, topics: string[]): Promise<Map<string, EventClient>> {
  const clients = new Map<string, EventClient>()
  for (const [name, listen] of Object.entries(pushTransports)) clients.set(name, await listen(urls, { topics }))
  return clients
}

const payloadsOf = ({ events }: EventClient): string[] => events.map(({ payload }) => payload.toString())

const post = (path: string, body: string): Question => ({ method: 'POST', path, body })
const json = (value: unknown): string => JSON.stringify(value)
const topics = (count: number): string => Array.from({ length: count }, (_, index) => `topic=t${index}`).join('&')

/** Each with what is named as wrong. */
const wrong: readonly (readonly [what: string, question: Question, parameter: string | undefined])[] = [
  ...['/v1/poll', '/v1/events', '/v1/presence'].flatMap(path =>
    ['a/%23/b', 'a%2B/b', '%00', '', 'a/b%2B', 'x/'.repeat(3000).slice(0, 5000)].map(
      topic => [`the filter ${topic.slice(0, 10)} at ${path}`, { path: `${path}?topic=${topic}` }, 'topic'] as const,
    ),
  ),
  ['no topic', { path: '/v1/poll' }, 'topic'],
  ['no topic of a stream', { path: '/v1/events' }, 'topic'],
  ['too many topics', { path: `/v1/poll?${topics(101)}` }, 'topic'],
  ...['999999999', '99999999999999999999', '0', '-1', '1e3', '1.5', 'x', ''].map(
    limit => [`limit=${limit}`, { path: `/v1/poll?topic=a&limit=${limit}` }, 'limit'] as const,
  ),
  ['limit of presence', { path: '/v1/presence?topic=a&limit=1001' }, 'limit'],
  ['limit of receipts', { path: '/v1/receipts?id=mi95vp7k1q3x8za-1&limit=10001' }, 'limit'],
  ['a long timeout', { path: '/v1/poll?topic=a&timeout=61' }, 'timeout'],
  ['many of the newest', { path: '/v1/poll?topic=a&last=10001' }, 'last'],
  ['a cursor that is none', { path: '/v1/poll?topic=a&cursor=%22%3E' }, 'cursor'],
  ['a long cursor', { path: `/v1/poll?topic=a&cursor=${'1'.repeat(4000)}` }, 'cursor'],
  ['a device with a line', { path: '/v1/poll?topic=a&device=a%0Ab' }, 'device'],
  ['a long handle', { path: `/v1/poll?topic=a&handle=${'x'.repeat(256)}` }, 'handle'],
  ['json=yes', { path: '/v1/poll?topic=a&json=yes' }, 'json'],
  ...['%23', '%2B', 'a/%2B/b', 'a/%23', '$SYS/x', '$SYS', '', '%00', 'a%00b'].map(
    topic => [`publishing to ${topic}`, post(`/v1/publish?topic=${topic}`, 'x'), 'topic'] as const,
  ),
  ['qos=3', post('/v1/publish?topic=a&qos=3', 'x'), 'qos'],
  ['retain=yes', post('/v1/publish?topic=a&retain=yes', 'x'), 'retain'],
  ['receipts of nobody', post('/v1/publish?topic=a&receiptWithin=1s', 'x'), 'receiptFrom'],
  ['receipts within no time', post('/v1/publish?topic=a&receiptFrom=x&receiptWithin=soon', 'x'), 'receiptWithin'],
  ...['', '{', '[', 'null x', '{"a":', '\u0000', '"\ud800"'].map(
    body => [`the body ${json(body)}`, post('/v1/publish', body), undefined] as const,
  ),
  ['a batch of none', post('/v1/publish', json({ messages: [] })), 'messages'],
  ['a large batch', post('/v1/publish', json({ messages: Array(1001).fill({ topic: 'a', payload: '' }) })), 'messages'],
  [
    'one of a batch',
    post(
      '/v1/publish',
      json({
        messages: [
          { topic: 'news/x', payload: 'never' },
          { topic: '#', payload: '' },
        ],
      }),
    ),
    'messages[1].topic',
  ],
  ['no payload', post('/v1/publish', json({ topic: 'a' })), 'payload'],
  ['no receipt', post('/v1/receipts', '{}'), 'id'],
  ['a receipt of no event', post('/v1/receipts', json({ id: '../..', status: 'received' })), 'id'],
  ['a receipt that says nothing', post('/v1/receipts', json({ id: 'mi95vp7k1q3x8za-1', status: 'x' })), 'status'],
  [
    'a receipt that says too much',
    post('/v1/receipts', json({ id: 'mi95vp7k1q3x8za-1', status: 'failed', detail: 'x'.repeat(1025) })),
    'detail',
  ],
  ...['alert(1)', '<script>', 'a;b', "a'", 'a%20b', '', 'x'.repeat(129), 'a%0Ab', '%C3%BC'].map(
    callback =>
      [`the callback ${callback.slice(0, 10)}`, { path: `/v1/poll?topic=a&callback=${callback}` }, 'callback'] as const,
  ),
]

describe('a gateway that is asked for what cannot be', () => {
  let gateway: TestGateway
  let bystanders: Map<string, EventClient>
  const published: string[] = []

  /** Publishes something that is right; those who listen get it, and nothing else before it. */
  async function publishRight(): Promise<string> {
    const payload = `right ${published.length}`
    published.push(payload)
    const { status, text } = await ask(gateway.urls, 'http', post('/v1/publish?topic=news/x', payload))
    expect(status).toBe(201)
    return JSON.parse(text).id
  }

  async function expectAllGot(): Promise<void> {
    for (const [name, client] of bystanders) {
      await eventually(() => client.events.length >= published.length)
      expect({ name, payloads: payloadsOf(client), gaps: client.gaps }).toEqual({ name, payloads: published, gaps: [] })
    }
  }

  beforeAll(async () => {
    gateway = await startTestGateway({ push: { jsonp: true }, limits: { requestsPerSecond: 'off' } })
    await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
    bystanders = await listenEverywhere(gateway.urls, ['news/#'])
  })
  afterAll(async () => {
    for (const client of bystanders?.values() ?? []) await client.close()
    await gateway?.close()
  })

  it.each(wrong)('says what is wrong with %s', async (_, question, parameter) => {
    const { status, headers, text } = await ask(gateway.urls, 'http', question)
    expect({ status, type: headers['content-type'] }).toEqual({ status: 400, type: 'application/problem+json' })
    const problem = JSON.parse(text)
    expect(problem).toMatchObject({ title: 'Bad Request', status: 400, reason: 'invalid-parameter' })
    expect(problem.parameter).toBe(parameter)
    expect(problem.detail).toMatch(/^(?:The body|\S+) .+/)
    // Nothing of what was sent comes back.
    expect(text).not.toMatch(/script|alert/)
    expect(headers['x-content-type-options']).toBe('nosniff')
    if (question.path.includes('/events') || question.path.includes('/poll')) {
      const overHttp2 = await ask(gateway.urls, 'h2', question)
      expect({ status: overHttp2.status, body: JSON.parse(overHttp2.text) }).toEqual({ status: 400, body: problem })
    }
    await publishRight()
  })

  it('tells of cursors that it does not know as a gap, with where to go on', async () => {
    const id = await publishRight()
    const [epoch = ''] = id.split('-')
    for (const [cursor, reason] of [
      [`${epoch.slice(0, -1)}${epoch.endsWith('a') ? 'b' : 'a'}-1`, 'other-epoch'],
      [`${epoch}-999999999`, 'unknown'],
    ]) {
      const { status, text } = await ask(gateway.urls, 'http', { path: `/v1/poll?topic=a&timeout=0&cursor=${cursor}` })
      expect({ status, gap: JSON.parse(text).gap }).toMatchObject({ status: 200, gap: { reason, cursor } })
    }
    for (const cursor of ['x', `${epoch}-`, `${epoch}-999999999`, '%00', '"'.repeat(100)]) {
      const listen = pushTransports['an event stream'] as Listen
      const stream = await listen(gateway.urls, { topics: ['a'], cursor })
      onTestFinished(() => stream.close())
      expect(stream.gaps).toEqual(['unknown'])
    }
  })

  it('takes no body that is larger than it says, nor a URL', async () => {
    for (const path of ['/v1/publish?topic=news/x', '/v1/publish', '/v1/receipts']) {
      const { status, text } = await ask(gateway.urls, 'http', post(path, 'x'.repeat(1024 ** 2 + 1)))
      expect({ status, reason: JSON.parse(text).reason }).toEqual({ status: 413, reason: 'body-too-large' })
    }
    const { status } = await ask(gateway.urls, 'http', { path: `/v1/poll?topic=${'x'.repeat(9000)}` })
    expect(status).toBe(414)
    await publishRight()
  })

  it('answers 10,000 polls of one handle, of which the last one waits', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 50 })
    onTestFinished(() => agent.destroy())
    const count = 10_000
    let answered = 0
    const polls = Array.from(
      { length: count },
      () =>
        new Promise<number>((resolve, reject) => {
          const url = `${gateway.urls.http}/v1/poll?topic=flood&handle=h&device=d&timeout=60`
          const request = get(url, { agent }, response => {
            response.resume()
            response.once('end', () => {
              answered++
              resolve(response.statusCode ?? 0)
            })
          })
          request.on('error', reject)
        }),
    )
    await eventually(() => answered >= count - 1)
    expect(answered).toBe(count - 1)
    const presence = await ask(gateway.urls, 'http', { path: '/v1/presence?topic=flood' })
    expect(JSON.parse(presence.text)).toMatchObject({ count: 1, listeners: [{ device: 'd', connections: 1 }] })
    expect((await ask(gateway.urls, 'http', post('/v1/publish?topic=flood', 'x'))).status).toBe(201)
    expect(new Set(await Promise.all(polls))).toEqual(new Set([200]))
    await publishRight()
  })

  it('leaves out nothing, and adds nothing, for those who listen', async () => {
    await publishRight()
    expect(published.length).toBeGreaterThan(wrong.length)
    await expectAllGot()
  })
})

describe('subscribers that never read', () => {
  const messages = 1500
  const size = 32 * 1024
  let gateway: ServingProgram
  let directory: string
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'mqway-stuck-'))
    writeFileSync(join(directory, 'mqway.yaml'), 'data: none\n')
    gateway = await serving(['--http-port', '0', '--https-port', '0', '--mqtt-port', '0'], directory)
    gateway.child.stdout.resume()
    await eventually(async () => (await fetch(`${gateway.url('http')}/readyz`)).status === 200)
  })
  afterAll(async () => {
    await gateway?.stop()
    rmSync(directory, { recursive: true, force: true })
  })

  const megabytes = (): number =>
    Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))?.[1]) / 1024
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`${gateway.url('http')}/metrics`)).text()
    const line = text.split('\n').find(line => line.startsWith(`${name} `))
    return Number(line?.slice(name.length))
  }

  it('are cut off and cost little, and the others get everything', async () => {
    const urls = { http: gateway.url('http'), https: gateway.url('https') }
    const { port } = new URL(urls.http)
    const stuck = 30
    for (let index = 0; index < stuck; index++) {
      const socket = net.connect(Number(port), '127.0.0.1')
      onTestFinished(() => void socket.destroy())
      socket.on('error', () => {})
      const upgrade =
        index % 2 === 0 ? '' : 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
      const key = upgrade === '' ? '' : 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
      const path = upgrade === '' ? 'events' : 'socket'
      socket.pause()
      socket.write(`GET /v1/${path}?topic=big HTTP/1.1\r\nHost: localhost\r\n${upgrade}${key}\r\n`)
    }
    const session = connectHttp2(urls.https, { rejectUnauthorized: false })
    onTestFinished(() => session.destroy())
    for (let index = 0; index < stuck; index++) {
      const stream = session.request({ ':path': '/v1/events?topic=big' })
      stream.on('error', () => {})
      stream.pause()
    }
    await eventually(async () => (await metric('mqway_push_subscribers')) === 2 * stuck)
    const bystanders = await listenEverywhere(urls, ['big'])
    onTestFinished(async () => {
      for (const client of bystanders.values()) await client.close()
    })
    const before = megabytes()
    const publisher = await mqtt.connectAsync(gateway.url('mqtt'), { reconnectPeriod: 0 })
    onTestFinished(() => publisher.endAsync(true))
    for (let index = 0; index < messages; index++) {
      const payload = Buffer.alloc(size, 'x')
      payload.write(`${index} `)
      await publisher.publishAsync('big', payload, { qos: 1 })
    }
    for (const [name, client] of bystanders) {
      await eventually(() => client.events.length >= messages)
      const numbers = client.events.map(({ payload }) => Number(payload.subarray(0, payload.indexOf(' '))))
      expect({ name, numbers, gaps: client.gaps }).toEqual({ name, numbers: [...Array(messages).keys()], gaps: [] })
    }
    await eventually(async () => (await metric('mqway_push_cut_off_total')) === 2 * stuck)
    expect(await metric('mqway_endings_total{reason="client-too-slow"}')).toBe(2 * stuck)
    // All of it would be 60 times 47 MiB; each may have a MiB in the queue, and what is being written.
    expect(megabytes() - before).toBeLessThan(400)
  }, 60_000)
})
