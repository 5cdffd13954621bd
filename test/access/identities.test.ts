import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { closeOf, handshake, mqttThrough, type Presented } from '../helpers/handshake.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'

/*
 * Every identity through every upgrade: plain and TLS, in front of a broker that knows nobody and of the built-in one.
 * The rows for CONNECT, on the MQTT port and through the tunnel, are in test/broker/access.test.ts.
 */

let people: People
let gateway: TestGateway
const closers: (() => Promise<unknown>)[] = []

const basic = (login: string): Presented => ({
  headers: { Authorization: `Basic ${Buffer.from(login).toString('base64')}` },
})
const bearer = (token: string): Presented => ({ headers: { Authorization: `Bearer ${token}` } })
const subprotocol = (token: string): Presented => ({ subprotocols: [`bearer.${token}`] })
const cookie = (token: string, Origin?: string): Presented => ({
  headers: { Cookie: `other=1; session=${token}`, ...(Origin && { Origin }) },
})

async function ticket(from: TestGateway = gateway): Promise<string> {
  const headers = bearer(await people.token()).headers ?? {}
  const response = await fetch(`${from.urls.http}/v1/tickets`, { method: 'POST', headers })
  const body: { ticket: string } = JSON.parse(await response.text())
  return body.ticket
}

const schemes = ['ws', 'wss'] as const
type Scheme = (typeof schemes)[number]
const at = (scheme: Scheme, path: string): string =>
  `${scheme === 'ws' ? gateway.urls.http.replace('http', 'ws') : gateway.urls.https.replace('https', 'wss')}${path}`
const pageOf = (scheme: Scheme): string => (scheme === 'ws' ? gateway.urls.http : gateway.urls.https)

/** In front of mosquitto and before the built-in broker, where an identity is needed; and where CONNECT may bring it. */
const fronts = ['/upstream', '/embedded', '/open'] as const

type Case = readonly [who: string, present: (scheme: Scheme) => Presented | Promise<Presented>]

const allowed: readonly (readonly [...Case, user: string, only?: Scheme])[] = [
  ['user and password', () => basic('alice:right'), 'alice'],
  ['a user of the webhook’s', () => basic('carol:hook'), 'carol'],
  ['a token', async () => bearer(await people.token()), 'alice'],
  ['a token as subprotocol', async () => subprotocol(await people.token()), 'alice'],
  ['a cookie of the same origin', async scheme => cookie(await people.token(), pageOf(scheme)), 'alice'],
  ['a ticket', async () => ({ query: `?ticket=${await ticket()}` }), 'alice'],
  ['a certificate', () => people.certificate('alice'), 'alice', 'wss'],
]

/** Ten wrong passwords are all that one address has at once. */
let addresses = 0
const anotherAddress = (): string => `127.7.0.${++addresses % 250}`

const seconds = (offset: number): number => Math.floor(Date.now() / 1000) + offset

const denied: readonly (readonly [...Case, status: number, only?: Scheme])[] = [
  ['a wrong password', () => basic('alice:wrong'), 401],
  ['somebody whom nobody knows', () => basic('mallory:right'), 401],
  ['somebody while the webhook is out of order', () => basic('broken:x'), 503],
  ['Basic without a password', () => basic('alice'), 401],
  ['a scheme that is not known', () => ({ headers: { Authorization: 'Digest username="alice"' } }), 401],
  ['a token with another secret', async () => bearer(await people.token({}, 'x'.repeat(32))), 401],
  ['a token that has expired', async () => bearer(await people.token({ exp: seconds(-1) })), 401],
  ['a token that never expires', async () => bearer(await people.token({ exp: undefined })), 401],
  ['a token that is not valid yet', async () => bearer(await people.token({ nbf: seconds(60) })), 401],
  ['a token for another audience', async () => bearer(await people.token({ aud: 'bank' })), 401],
  ['a token without a name', async () => bearer(await people.token({ sub: 'a\nb' })), 401],
  ['an unsigned token', () => bearer(people.forgedToken({ alg: 'none' })), 401],
  ['a token signed with nothing', () => bearer(people.forgedToken({ alg: 'HS256' }, '')), 401],
  ['a token that brings its key', () => bearer(people.forgedToken({ alg: 'RS256', jwk: { kty: 'RSA' } }, 'x')), 401],
  ['a bad token as subprotocol', () => subprotocol('a.b.c'), 401],
  ['a bad cookie', scheme => cookie('a.b.c', pageOf(scheme)), 401],
  ['a cookie without an origin', async () => cookie(await people.token()), 403],
  ['a cookie of another origin', async () => cookie(await people.token(), 'https://evil.example'), 403],
  ['a ticket that never was', () => ({ query: `?ticket=${'x'.repeat(43)}` }), 401],
  ['two tickets', () => ({ query: '?ticket=a&ticket=b' }), 401],
  ['a wrong password and a good certificate', () => ({ ...basic('alice:wrong'), ...people.certificate('alice') }), 401],
  ['a certificate of another CA', () => people.certificate('foreign'), 401, 'wss'],
  ['a certificate that was revoked', () => people.certificate('revoked'), 401, 'wss'],
]

const everywhere = <T extends readonly unknown[]>(rows: readonly (readonly [...T, only?: Scheme])[], only: number) =>
  rows.flatMap(row =>
    schemes.flatMap(scheme => (row[only] === undefined || row[only] === scheme ? [{ scheme, row }] : [])),
  )

describeWith(['mosquitto', 'openssl'], 'at the upgrade', () => {
  beforeAll(async () => {
    people = await People.start()
    closers.push(() => people.stop())
    const mosquitto = await startMosquitto()
    closers.push(() => mosquitto.stop())
    const config: ConfigInput = {
      access: { ...people.access, rules: [{ to: 'authenticated', publish: ['own/%u'], subscribe: ['own/%u'] }] },
      tunnels: [
        { path: '/upstream', broker: `mqtt://127.0.0.1:${mosquitto.port}`, requireIdentity: true },
        { path: '/embedded', requireIdentity: true },
        { path: '/open' },
      ],
    }
    gateway = await startTestGateway(config)
    closers.push(() => gateway.close())
  })
  afterAll(async () => {
    for (const close of closers.reverse()) await close()
  })

  for (const { scheme, row } of everywhere(allowed, 3)) {
    const [who, present, user] = row
    it.each(fronts)(`${who} gets in over ${scheme}, at %s, as ${user}`, async path => {
      const client = await mqttThrough(at(scheme, path), await present(scheme))
      const own = `own/${user}`
      expect(await client.subscribeAsync(own)).toEqual([{ topic: own, qos: 0 }])
      const arrived = nextMessage(client)
      await client.publishAsync(own, 'hello')
      expect(String((await arrived).payload)).toBe('hello')
      if (path !== '/upstream') await expect(client.subscribeAsync('own/somebody')).rejects.toThrow('Unspecified error')
    })
  }

  for (const { scheme, row } of everywhere(denied, 3)) {
    const [who, present, status] = row
    it.each(fronts)(`${who} does not get in over ${scheme}, at %s: ${status}`, async path => {
      const answer = await handshake(at(scheme, path), { ...(await present(scheme)), localAddress: anotherAddress() })
      expect(answer).toMatchObject({ status })
      const challenge = 'Bearer realm="mqway", Basic realm="mqway", charset="UTF-8"'
      expect(answer.headers['www-authenticate']).toBe(status === 401 ? challenge : undefined)
      if (status === 503) expect(answer.headers['retry-after']).toBe('5')
    })
  }

  it.each(schemes)('nobody gets in over %s without saying who they are, where that is required', async scheme => {
    // It is the webhook that says so.
    expect(await handshake(at(scheme, '/upstream'))).toMatchObject({ status: 401 })
    expect(await handshake(at(scheme, '/embedded'))).toMatchObject({ status: 401 })
  })

  it.each(schemes)('elsewhere CONNECT says it, over %s', async scheme => {
    const login = { username: 'alice', password: 'right' }
    const client = await mqttThrough(at(scheme, '/open'), {}, login)
    expect(await client.subscribeAsync('own/alice')).toEqual([{ topic: 'own/alice', qos: 0 }])
    await expect(mqttThrough(at(scheme, '/open'))).rejects.toMatchObject({ code: 4 })
    await expect(mqttThrough(at(scheme, '/open'), {}, { ...login, password: 'x' })).rejects.toMatchObject({ code: 4 })
  })

  it.each(schemes)('the token of a subprotocol is not echoed, over %s', async scheme => {
    const { headers } = await handshake(at(scheme, '/open'), subprotocol(await people.token()))
    expect(headers['sec-websocket-protocol']).toBe('mqtt')
  })

  it('a header that the webhook is to see is judged by it; without one, CONNECT is', async () => {
    const webhook = { url: people.access.webhook?.url ?? '', headers: ['X-API-Key'] }
    const rules = [{ to: { user: 'carol' }, subscribe: ['own/carol'] }]
    const other = await startTestGateway({ access: { webhook, rules } })
    onTestFinished(() => other.close())
    const url = `${other.urls.http.replace('http', 'ws')}/mqtt`
    const client = await mqttThrough(url, { headers: { 'x-api-key': 'good' } })
    expect(await client.subscribeAsync('own/carol')).toEqual([{ topic: 'own/carol', qos: 0 }])
    expect(await handshake(url, { headers: { 'x-api-key': 'bad' } })).toMatchObject({ status: 401 })
    expect(await handshake(url)).toMatchObject({ status: 101 })
    await expect(mqttThrough(url, {}, { username: 'carol', password: 'bad' })).rejects.toMatchObject({ code: 4 })
    const known = await mqttThrough(url, {}, { username: 'carol', password: 'hook' })
    expect(known.connected).toBe(true)
  })

  it('a ticket gets in once, also when it is used twice at the same moment', async () => {
    const query = `?ticket=${await ticket()}`
    const twice = await Promise.all([1, 2].map(() => handshake(at('ws', '/embedded'), { query })))
    expect(twice.map(({ status }) => status).sort()).toEqual([101, 401])
    expect(await handshake(at('wss', '/upstream'), { query })).toMatchObject({
      status: 401,
      text: 'The credentials are not accepted: the ticket was used already, or has expired\n',
    })
  })

  it('a tunnel ends with the token that opened it, and with the ticket that stood for that token', async () => {
    const token = await people.token({ exp: seconds(2) })
    const response = await fetch(`${gateway.urls.http}/v1/tickets`, { method: 'POST', ...bearer(token) })
    const query = `?ticket=${JSON.parse(await response.text()).ticket}`
    const answers = await Promise.all([
      ...fronts.map(path => handshake(at('wss', path), bearer(token))),
      handshake(at('ws', '/upstream'), { query }),
    ])
    const ends = await Promise.all(answers.map(({ client }) => closeOf(client)))
    for (const end of ends) expect(end).toEqual({ code: 1008, reason: 'What proved who you are has expired' })
  })

  it('a certificate that is revoked while the gateway runs gets in no more', { timeout: 15_000 }, async () => {
    const own = await People.start()
    onTestFinished(() => own.stop())
    const other = await startTestGateway({ access: own.access, tunnels: [{ path: '/mqtt', requireIdentity: true }] })
    onTestFinished(() => other.close())
    const url = `${other.urls.https.replace('https', 'wss')}/mqtt`
    expect(await handshake(url, own.certificate('alice'))).toMatchObject({ status: 101 })
    own.revoke('alice')
    await other.gateway.reload()
    expect(await handshake(url, own.certificate('alice'))).toMatchObject({
      status: 401,
      text: 'The credentials are not accepted: the client certificate is not valid (CERT_REVOKED)\n',
    })
  })
})
