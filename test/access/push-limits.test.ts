import { expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import type { ConfigInput } from '../../src/config/schema.js'
import { ask } from '../helpers/asking.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { handshake } from '../helpers/handshake.js'
import { basic, bearer } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { openSource, type TestSource } from '../transports/event-source.js'

/*
 * How many, and how fast, over push: what is reached is said, with the time when it makes sense to come back, and counted.
 */

async function start(config: ConfigInput): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  return gateway
}

type Headers = Readonly<Record<string, string>>

async function source({ urls }: TestGateway, headers: Headers = {}): Promise<TestSource> {
  const opened = await openSource(`${urls.http}/v1/events?topic=a`, { ...headers })
  onTestFinished(() => opened.leave())
  return opened
}

const socket = ({ urls }: TestGateway, headers: Headers = {}) =>
  handshake(`${urls.http.replace('http', 'ws')}/v1/socket?topic=a`, { headers, protocol: 'mqway' })

const poll = ({ urls }: TestGateway, headers: Headers = {}, timeout = 0) =>
  ask(urls, 'http', { path: `/v1/poll?topic=a&timeout=${timeout}`, headers })

const publish = ({ urls }: TestGateway, headers: Headers = {}, more = '') =>
  ask(urls, 'http', { method: 'POST', path: `/v1/publish?topic=a${more}`, body: 'x', headers })

const refusals = (gateway: TestGateway, reason: string) => figure(gateway, `mqway_refusals_total{reason="${reason}"}`)

async function figure({ urls }: TestGateway, name: string): Promise<number> {
  // Not by `fetch`, which keeps its connection: it would be one of those that are counted.
  const { text } = await ask(urls, 'http', { path: '/metrics' })
  const line = text.split('\n').find(candidate => candidate.startsWith(`${name} `))
  return Number(line?.slice(name.length))
}

/** Opens what stays open until `room` are there, in every way, and sees how one more is answered in every way. */
async function fill(gateway: TestGateway, room: number, status: number, reason: string, headers: Headers = {}) {
  const open: (() => void)[] = []
  for (let index = 0; index < room; index++) {
    if (index % 2 === 0) {
      const stream = await source(gateway, headers)
      expect(stream.status).toBe(200)
      open.push(() => stream.leave())
    } else {
      const { client, ...answer } = await socket(gateway, headers)
      expect(answer.status).toBe(101)
      open.push(() => client.terminate())
    }
  }
  const before = await refusals(gateway, reason)
  const refused = await source(gateway, headers)
  expect(refused).toMatchObject({ status, headers: { 'retry-after': '10' } })
  const polled = await poll(gateway, headers)
  expect({ ...polled, reason: JSON.parse(polled.text).reason }).toMatchObject({
    status,
    reason,
    headers: { 'retry-after': '10', 'content-type': 'application/problem+json' },
  })
  expect(await socket(gateway, headers)).toMatchObject({ status, headers: { 'retry-after': '10' } })
  expect(await refusals(gateway, reason)).toBe(before + 3)
  // What stays open for no time is not counted.
  expect((await publish(gateway, headers)).status).toBe(201)
  // Whoever leaves makes room, on every transport.
  for (const leave of open) leave()
  await eventually(async () => (await poll(gateway, headers)).status === 200)
  await eventually(async () => {
    const again = await Promise.all(Array.from({ length: room }, () => source(gateway, headers)))
    for (const stream of again) stream.leave()
    return again.every(stream => stream.status === 200)
  })
}

describeWith('openssl', 'over push', () => {
  it('there are as many open as limits.connections says, whoever they are of', async () => {
    await fill(await start({ limits: { connections: 4 } }), 4, 503, 'too-many-connections')
  })

  it('there are as many of one address as limits.connectionsPerAddress says', async () => {
    const gateway = await start({ limits: { connectionsPerAddress: 5 } })
    await fill(gateway, 5, 429, 'too-many-from-address')
  })

  it('there are as many of one user as limits.connectionsPerUser says, and others have their own', async () => {
    const people = await People.start()
    onTestFinished(() => people.stop())
    const gateway = await start({ access: people.access, limits: { connectionsPerUser: 3 } })
    const carol = await source(gateway, basic('carol:hook').headers)
    expect(carol.status).toBe(200)
    await fill(gateway, 3, 429, 'too-many-from-user', bearer(await people.token()).headers)
    expect(carol.ended).toBe(false)
  })

  it('a poll that waits counts, and gives its place back with the answer', async () => {
    const gateway = await start({ limits: { connectionsPerAddress: 2 } })
    const waiting = [poll(gateway, {}, 30), poll(gateway, {}, 30)]
    // One more that comes between the two would take the place of the second.
    await eventually(async () => (await figure(gateway, 'mqway_push_subscribers')) === 2)
    expect((await poll(gateway)).status).toBe(429)
    expect((await publish(gateway)).status).toBe(201)
    for (const answer of await Promise.all(waiting)) expect(answer.status).toBe(200)
    expect((await poll(gateway)).status).toBe(200)
  })

  it('requests come as fast as limits.requestsPerSecond says, from one address', async () => {
    const gateway = await start({ limits: { requestsPerSecond: 1, requestsBurst: 5 } })
    const paths = [
      '/v1/events?topic=a',
      '/v1/poll?topic=a&timeout=0',
      '/v1/receipts?id=x',
      '/v1/presence?topic=a',
      '/v1/openapi.json',
    ]
    for (const path of paths) expect((await ask(gateway.urls, 'http', { path })).status).not.toBe(429)
    const posts = ['/v1/publish?topic=a', '/v1/receipts', '/v1/connections/x']
    const questions = [...paths.map(path => ({ path })), ...posts.map(path => ({ method: 'POST', path, body: '{}' }))]
    for (const question of questions) {
      const { status, headers, text } = await ask(gateway.urls, 'http', question)
      expect({ path: question.path, status, retry: headers['retry-after'] }).toEqual({
        path: question.path,
        status: 429,
        retry: '1',
      })
      expect(JSON.parse(text)).toMatchObject({ reason: 'too-many-requests' })
    }
    expect(await refusals(gateway, 'too-many-requests')).toBe(questions.length)
    // Another address has its own.
    const elsewhere = await ask(gateway.urls, 'http', { path: paths[1] ?? '' }, { localAddress: '127.9.9.9' })
    expect(elsewhere.status).toBe(200)
    await eventually(async () => (await poll(gateway)).status === 200)
  })

  it('sockets open as fast as limits.upgradesPerSecond says, from one address', async () => {
    const gateway = await start({ limits: { upgradesPerSecond: 1, upgradesBurst: 2 } })
    for (let index = 0; index < 2; index++) expect((await socket(gateway)).status).toBe(101)
    expect(await socket(gateway)).toMatchObject({ status: 429, headers: { 'retry-after': '1' } })
    expect(await refusals(gateway, 'connecting-too-fast')).toBe(1)
  })

  it('messages come as fast as limits.publishesPerSecond says: of each user, and of each socket', async () => {
    const people = await People.start()
    onTestFinished(() => people.stop())
    const gateway = await start({ access: people.access, limits: { publishesPerSecond: 1, publishesBurst: 5 } })
    const alice = bearer(await people.token()).headers ?? {}
    for (let index = 0; index < 5; index++) expect((await publish(gateway, alice)).status).toBe(201)
    const refused = await publish(gateway, basic('alice:right').headers)
    expect({ ...refused, reason: JSON.parse(refused.text).reason }).toMatchObject({
      status: 429,
      reason: 'publishing-too-fast',
      headers: { 'retry-after': '1' },
    })
    expect(await refusals(gateway, 'publishing-too-fast')).toBe(1)
    expect((await publish(gateway, basic('carol:hook').headers)).status).toBe(201)

    const url = `${gateway.urls.http.replace('http', 'ws')}/v1/socket`
    const client = new WebSocket(url, { headers: alice })
    onTestFinished(() => client.terminate())
    const told: { readonly type: string; readonly [member: string]: unknown }[] = []
    client.on('message', data => told.push(JSON.parse(String(data))))
    await eventually(() => told.length > 0)
    for (let ref = 0; ref < 8; ref++) client.send(JSON.stringify({ type: 'publish', topic: 'a', payload: 'x', ref }))
    await eventually(() => told.filter(({ ref }) => ref !== undefined).length === 8)
    const answers = told.filter(({ ref }) => ref !== undefined)
    expect(answers.filter(({ type }) => type === 'ok')).toHaveLength(5)
    for (const error of answers.filter(({ type }) => type === 'error')) {
      expect(error).toMatchObject({ status: 429, reason: 'publishing-too-fast', retryAfter: 1 })
    }
    expect(await refusals(gateway, 'publishing-too-fast')).toBe(4)
    expect(client.readyState).toBe(WebSocket.OPEN)
  })

  it('wrong passwords are looked at ten at a time of one address, wherever they are tried', async () => {
    const people = await People.start()
    onTestFinished(() => people.stop())
    const gateway = await start({ access: people.access })
    const wrong = basic('alice:wrong').headers ?? {}
    const tries = [poll, publish, socket, source] as const
    let tried = 0
    await eventually(async () => {
      const attempt = tries[tried++ % tries.length] ?? poll
      return (await attempt(gateway, wrong)).status === 429
    })
    expect(tried).toBeGreaterThan(10)
    for (const attempt of tries) {
      const { status, headers } = await attempt(gateway, wrong)
      expect(status).toBe(429)
      expect(Number(headers['retry-after'])).toBeGreaterThan(0)
    }
    expect(await refusals(gateway, 'too-many-attempts')).toBe(tries.length + 1)
    // Whoever comes with something else is not in the way of that.
    expect((await poll(gateway, bearer(await people.token()).headers)).status).toBe(200)
  })

  it('a batch that is larger than the burst is taken, and what comes after it waits for it', async () => {
    const gateway = await start({ limits: { publishesPerSecond: 100, publishesBurst: 10 } })
    const batch = (count: number) =>
      ask(gateway.urls, 'http', {
        method: 'POST',
        path: '/v1/publish',
        body: JSON.stringify({ messages: Array.from({ length: count }, () => ({ topic: 'a', payload: 'x' })) }),
      })
    expect((await batch(200)).status).toBe(201)
    const refused = await publish(gateway)
    expect(refused).toMatchObject({ status: 429 })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    await eventually(async () => (await publish(gateway)).status === 201)
  })
})
