import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { closeOf, handshake, mqttThrough } from '../helpers/handshake.js'
import {
  allowedIdentities,
  bearer,
  deniedIdentities,
  type IdentityRow,
  type Stage,
  secondsFromNow,
  subprotocol,
  ticketOf,
} from '../helpers/identities.js'
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

const schemes = ['ws', 'wss'] as const
type Scheme = (typeof schemes)[number]
const at = (scheme: Scheme, path: string): string =>
  `${scheme === 'ws' ? gateway.urls.http.replace('http', 'ws') : gateway.urls.https.replace('https', 'wss')}${path}`
const pageOf = (scheme: Scheme): string => (scheme === 'ws' ? gateway.urls.http : gateway.urls.https)

/** In front of mosquitto and before the built-in broker, where an identity is needed; and where CONNECT may bring it. */
const fronts = ['/upstream', '/embedded', '/open'] as const

/** Ten wrong passwords are all that one address has at once. */
let addresses = 0
const anotherAddress = (): string => `127.7.0.${++addresses % 250}`

const everywhere = <Row extends IdentityRow>(rows: readonly Row[]): { scheme: Scheme; row: Row }[] =>
  rows.flatMap(row => schemes.flatMap(scheme => (row.only !== 'tls' || scheme === 'wss' ? [{ scheme, row }] : [])))
const stageOf = (scheme: Scheme): Stage => ({ people, http: gateway.urls.http, page: pageOf(scheme) })

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

  for (const { scheme, row } of everywhere(allowedIdentities)) {
    const { who, present, user } = row
    it.each(fronts)(`${who} gets in over ${scheme}, at %s, as ${user}`, async path => {
      const client = await mqttThrough(at(scheme, path), await present(stageOf(scheme)))
      const own = `own/${user}`
      expect(await client.subscribeAsync(own)).toEqual([{ topic: own, qos: 0 }])
      const arrived = nextMessage(client)
      await client.publishAsync(own, 'hello')
      expect(String((await arrived).payload)).toBe('hello')
      if (path !== '/upstream') await expect(client.subscribeAsync('own/somebody')).rejects.toThrow('Unspecified error')
    })
  }

  for (const { scheme, row } of everywhere(deniedIdentities)) {
    const { who, present, status } = row
    it.each(fronts)(`${who} does not get in over ${scheme}, at %s: ${status}`, async path => {
      const answer = await handshake(at(scheme, path), {
        ...(await present(stageOf(scheme))),
        localAddress: anotherAddress(),
      })
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
    const query = `?ticket=${await ticketOf(gateway.urls.http, bearer(await people.token()))}`
    const twice = await Promise.all([1, 2].map(() => handshake(at('ws', '/embedded'), { query })))
    expect(twice.map(({ status }) => status).sort()).toEqual([101, 401])
    expect(await handshake(at('wss', '/upstream'), { query })).toMatchObject({
      status: 401,
      text: 'The credentials are not accepted: the ticket was used already, or has expired\n',
    })
  })

  it('a tunnel ends with the token that opened it, and with the ticket that stood for that token', async () => {
    const token = await people.token({ exp: secondsFromNow(2) })
    const response = await fetch(`${gateway.urls.http}/v1/tickets`, { method: 'POST', ...bearer(token) })
    const query = `?ticket=${JSON.parse(await response.text()).ticket}`
    const answers = await Promise.all([
      ...fronts.map(path => handshake(at('wss', path), bearer(token))),
      handshake(at('ws', '/upstream'), { query }),
    ])
    const ends = await Promise.all(answers.map(({ client }) => closeOf(client)))
    for (const end of ends) expect(end).toEqual({ code: 1008, reason: 'Credentials expired' })
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
