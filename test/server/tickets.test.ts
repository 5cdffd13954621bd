import { once } from 'node:events'
import { createServer, request as httpRequest } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { handshake } from '../helpers/handshake.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { exchange } from './rig.js'

let people: People
let gateway: TestGateway
const closers: (() => Promise<unknown>)[] = []

const page = 'https://app.example'

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  return startTestGateway({
    access: people.access,
    tunnels: [{ path: '/mqtt', requireIdentity: true, origins: ['same-origin', page] }],
    ...config,
  })
}

const validHandshake = {
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==',
  'Sec-WebSocket-Version': '13',
}

const login = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`
const withToken = async () => ({ Authorization: `Bearer ${await people.token()}` })

function post(headers: Record<string, string>, from = gateway, query = ''): Promise<Response> {
  return fetch(`${from.urls.http}/v1/tickets${query}`, { method: 'POST', headers })
}

describeWith('openssl', 'POST /v1/tickets', () => {
  beforeAll(async () => {
    people = await People.start()
    closers.push(() => people.stop())
    gateway = await start()
    closers.push(() => gateway.close())
  })
  afterAll(async () => {
    for (const close of closers.reverse()) await close()
  })

  const opensTunnel = async (answer: unknown): Promise<number> => {
    const { ticket } = answer as { ticket: string }
    return (await handshake(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, { query: `?ticket=${ticket}` })).status
  }

  it.each([
    ['a token', () => withToken()],
    ['user and password', async () => ({ Authorization: login('alice:right') })],
    ['what the webhook knows', async () => ({ Authorization: login('carol:hook') })],
  ])('gives a ticket for %s', async (_what, present) => {
    const before = Date.now()
    const response = await post(await present())
    expect(response.status).toBe(201)
    expect(response.headers.get('cache-control')).toBe('no-store')
    const body: { expires: string } = JSON.parse(await response.text())
    expect(body).toEqual({ ticket: expect.stringMatching(/^[\w-]{43}$/), expires: expect.any(String) })
    expect(Math.round((Date.parse(body.expires) - before) / 1000)).toBe(30)
    expect(await opensTunnel(body)).toBe(101)
  })

  it('gives a ticket for a certificate, over HTTP/1.1', async () => {
    const request = httpsRequest(`${gateway.urls.https}/v1/tickets`, {
      method: 'POST',
      rejectUnauthorized: false,
      agent: false,
      ...people.certificate('alice'),
    }).end()
    const [response] = await once(request, 'response')
    let text = ''
    for await (const chunk of response) text += chunk
    expect(response.statusCode).toBe(201)
    expect(await opensTunnel(JSON.parse(text))).toBe(101)
  })

  it.each([
    ['alice', 201],
    ['foreign', 401],
    ['revoked', 401],
    [undefined, 401],
  ] as const)('over HTTP/2, with the certificate %s, is answered %i', async (name, status) => {
    const session = connectHttp2(gateway.urls.https, {
      rejectUnauthorized: false,
      ...(name && people.certificate(name)),
    })
    onTestFinished(() => session.destroy())
    const stream = session.request({ ':path': '/v1/tickets', ':method': 'POST' })
    const [headers] = await once(stream, 'response')
    let text = ''
    for await (const chunk of stream.setEncoding('utf8')) text += chunk
    expect(headers[':status']).toBe(status)
    if (status === 201) expect(await opensTunnel(JSON.parse(text))).toBe(101)
  })

  it.each([
    ['x-forwarded-for', 'unknown'],
    ['forwarded', 'for=unknown'],
    ['via', '1.1 proxy'],
  ])('gives no ticket for the certificate of a trusted proxy that says %s: %s', async (name, value) => {
    const own = await start({ trustedProxies: ['loopback'] })
    onTestFinished(() => own.close())
    const session = connectHttp2(own.urls.https, { rejectUnauthorized: false, ...people.certificate('alice') })
    onTestFinished(() => session.destroy())
    const statusWith = async (headers: Record<string, string>): Promise<number> => {
      const [answer] = await once(
        session.request({ ':path': '/v1/tickets', ':method': 'POST', ...headers }),
        'response',
      )
      return answer[':status']
    }
    expect([await statusWith({}), await statusWith({ [name]: value })]).toEqual([201, 401])
  })

  it('gives no ticket for a cookie that a webhook knows', async () => {
    const webhook = createServer(async (request, response) => {
      let text = ''
      for await (const chunk of request) text += chunk
      const { headers } = JSON.parse(text)
      const known = headers?.cookie !== undefined || headers?.['x-api-key'] !== undefined
      response.end(JSON.stringify(known ? { allow: true, user: 'carol' } : { allow: false }))
    })
    await once(webhook.listen(0, '127.0.0.1'), 'listening')
    onTestFinished(() => void webhook.close())
    const { port } = webhook.address() as AddressInfo
    const own = await start({
      access: { webhook: { url: `http://127.0.0.1:${port}/`, headers: ['Cookie', 'X-Api-Key'] } },
    })
    onTestFinished(() => own.close())
    expect((await post({ Cookie: 'session=1', Origin: page }, own)).status).toBe(401)
    expect((await post({ 'X-Api-Key': '1', Origin: page }, own)).status).toBe(201)
  })

  it.each([
    ['nothing', async () => ({}), 401, 'identity-refused'],
    ['a wrong password', async () => ({ Authorization: login('alice:wrong') }), 401, 'identity-refused'],
    [
      'an expired token',
      async () => ({ Authorization: `Bearer ${await people.token({ exp: 1 })}` }),
      401,
      'identity-refused',
    ],
    ['a cookie', async () => ({ Cookie: `session=${await people.token()}`, Origin: page }), 401, 'identity-refused'],
    ['a webhook that is out of order', async () => ({ Authorization: login('broken:x') }), 503, 'identity-unavailable'],
    [
      'a page of another site',
      async () => ({ ...(await withToken()), Origin: 'https://evil.example' }),
      403,
      'origin-refused',
    ],
  ] as const)('refuses %s, as a problem', async (_what, present, status, reason) => {
    const response = await post(await present())
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toBe('application/problem+json')
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(response.headers.get('www-authenticate') !== null).toBe(status === 401)
    expect(response.headers.get('retry-after')).toBe(status === 503 ? '5' : null)
    expect(await response.json()).toMatchObject({ type: 'about:blank', status, reason, title: expect.any(String) })
  })

  it.each([
    [{}, 'Basic'],
    [{ 'Sec-Fetch-Mode': 'navigate' }, 'Basic'],
    [{ 'Sec-Fetch-Mode': 'cors' }, 'xBasic'],
    [{ 'Sec-Fetch-Mode': 'same-origin' }, 'xBasic'],
    [{ 'X-Requested-With': 'XMLHttpRequest' }, 'xBasic'],
  ])('makes the browser of a script open no window for the password: %j is asked for %s', async (headers, scheme) => {
    // The client here would say itself what mode it has.
    const request = httpRequest(`${gateway.urls.http}/v1/tickets`, { method: 'POST', headers }).end()
    const [response] = await once(request, 'response')
    response.resume()
    expect(response.statusCode).toBe(401)
    expect(response.headers['www-authenticate']).toBe(`Bearer realm="mqway", ${scheme} realm="mqway", charset="UTF-8"`)
  })

  it('gives no ticket for a ticket, which would never end', async () => {
    const { ticket } = JSON.parse(await (await post(await withToken())).text())
    const response = await post({}, gateway, `?ticket=${ticket}`)
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({ detail: 'The credentials are not accepted: a ticket gets no ticket' })
  })

  it.each(['', '{}', '{', 'a=b', 'x'.repeat(1000)])('has no use for a body such as %.10j', async body => {
    for (const type of ['application/json', 'application/x-www-form-urlencoded', 'x/y']) {
      const headers = { ...(await withToken()), 'content-type': type }
      const response = await fetch(`${gateway.urls.http}/v1/tickets`, { method: 'POST', headers, body })
      expect(response.status).toBe(201)
    }
  })

  it('lets pages in that may connect, which send what they have themselves', async () => {
    const preflight = await fetch(`${gateway.urls.http}/v1/tickets`, {
      method: 'OPTIONS',
      headers: { Origin: page, 'Access-Control-Request-Method': 'POST' },
    })
    expect(preflight.status).toBe(204)
    expect(Object.fromEntries(preflight.headers)).toMatchObject({
      'access-control-allow-origin': page,
      'access-control-allow-methods': 'POST',
      'access-control-allow-headers': 'authorization, content-type',
      vary: 'origin',
    })
    const response = await post({ ...(await withToken()), Origin: page })
    expect(response.headers.get('access-control-allow-origin')).toBe(page)
    // Nothing that a browser adds by itself would count.
    expect(response.headers.get('access-control-allow-credentials')).toBe(null)
    const stranger = await fetch(`${gateway.urls.http}/v1/tickets`, {
      method: 'OPTIONS',
      headers: { Origin: 'https://evil.example' },
    })
    expect(stranger.status).toBe(403)
    expect(stranger.headers.get('access-control-allow-origin')).toBe(null)
  })

  it.each<[string, string, string, Record<string, string | undefined>]>([
    ['400', 'bad-handshake', 'GET', { 'Sec-WebSocket-Key': undefined }],
    ['400', 'bad-handshake', 'GET', { 'Sec-WebSocket-Key': 'short' }],
    ['400', 'bad-handshake', 'POST', {}],
    ['400', 'bad-handshake', 'GET', { Upgrade: 'websocket, h2c' }],
    ['400', 'bad-handshake', 'GET', { 'Sec-WebSocket-Version': undefined }],
    ['426', 'unsupported-version', 'GET', { 'Sec-WebSocket-Version': '8' }],
    ['426', 'unsupported-version', 'GET', { 'Sec-WebSocket-Version': '14' }],
    ['400', 'bad-handshake', 'GET', { 'Sec-WebSocket-Protocol': 'mqtt, mqtt' }],
    ['400', 'bad-handshake', 'GET', { 'Sec-WebSocket-Protocol': ',,' }],
    ['400', 'unsupported-subprotocol', 'GET', { 'Sec-WebSocket-Protocol': 'chat' }],
  ])('is not used up by a handshake that cannot succeed: %s, %s (%s %j)', async (status, reason, method, headers) => {
    const answer: { ticket: string } = JSON.parse(await (await post(await withToken())).text())
    const count = async (): Promise<number> => {
      const text = await (await fetch(`${gateway.urls.http}/metrics`)).text()
      return Number(new RegExp(`^mqway_refusals_total\\{reason="${reason}"\\} (\\d+)$`, 'm').exec(text)?.[1])
    }
    const before = await count()
    const all = { Host: 'localhost', ...validHandshake, ...headers }
    const lines = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : `${name}: ${value}\r\n`))
    const request = `${method} /mqtt?ticket=${answer.ticket} HTTP/1.1\r\n${lines.join('')}\r\n`
    const text = await exchange(Number(new URL(gateway.urls.http).port), request)
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(/^Sec-WebSocket-Version: 13\r$/m.test(text)).toBe(status === '426')
    expect(await count()).toBe(before + 1)
    expect(await opensTunnel(answer)).toBe(101)
  })

  it('is the only method', async () => {
    const response = await fetch(`${gateway.urls.http}/v1/tickets`)
    expect(response.status).toBe(405)
    expect(response.headers.get('allow')).toBe('POST, OPTIONS')
    expect(await response.json()).toEqual({ type: 'about:blank', title: 'Method Not Allowed', status: 405 })
    const nothing = await fetch(`${gateway.urls.http}/v1/nothing`)
    expect([nothing.status, nothing.headers.get('content-type')]).toEqual([404, 'application/problem+json'])
  })

  it('is answered 503 with Retry-After when too many wait', async () => {
    const own = await start({ access: { ...people.access, tickets: { max: 2 } } })
    onTestFinished(() => own.close())
    const statuses: number[] = []
    for (let i = 0; i < 3; i++) statuses.push((await post(await withToken(), own)).status)
    expect(statuses).toEqual([201, 201, 503])
    const response = await post(await withToken(), own)
    expect(response.headers.get('retry-after')).toBe('10')
    expect(await response.json()).toMatchObject({ reason: 'too-many-tickets' })
  })

  it('is answered 429 with Retry-After after ten wrong passwords, and says nothing of the eleventh', async () => {
    const own = await start({ access: { htpasswd: people.file('users') } })
    onTestFinished(() => own.close())
    const wrong = { Authorization: login('alice:wrong') }
    for (let i = 0; i < 10; i++) expect((await post(wrong, own)).status).toBe(401)
    for (const headers of [wrong, { Authorization: login('alice:right') }]) {
      const response = await post(headers, own)
      expect([response.status, response.headers.get('retry-after')]).toEqual([429, '10'])
    }
  })
})

describe('without access', () => {
  it('there are no tickets', async () => {
    const plain = await startTestGateway()
    onTestFinished(() => plain.close())
    expect((await fetch(`${plain.urls.http}/v1/tickets`, { method: 'POST' })).status).toBe(404)
  })
})
