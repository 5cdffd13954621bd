import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { ask, type Question, versions } from '../helpers/asking.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { handshake, type Presented } from '../helpers/handshake.js'
import { basic, bearer, ticketOf } from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'

/*
 * Pages of other origins at the endpoints of push, in requests as browsers make them. Those of a real one are in
 * test/browser/push-access.test.ts.
 */

let people: People
const evil = 'https://evil.example'

const endpoints: readonly (Question & { readonly allowed: string })[] = [
  { path: '/v1/events?topic=a', allowed: 'GET, HEAD' },
  { path: '/v1/poll?topic=a&timeout=0', allowed: 'GET, HEAD' },
  { path: '/v1/publish?topic=a', method: 'POST', body: 'x', allowed: 'POST' },
  { path: '/v1/receipts', method: 'POST', body: '{}', allowed: 'GET, POST' },
  { path: '/v1/receipts?id=x', allowed: 'GET, POST' },
  { path: '/v1/presence?topic=a', allowed: 'GET, HEAD' },
  { path: '/v1/openapi.json', allowed: 'GET, HEAD' },
  { path: '/v1/connections/x', method: 'POST', allowed: 'POST' },
]

async function start(config: ConfigInput): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  return gateway
}
const socketAt = ({ urls }: TestGateway): string => `${urls.http.replace('http', 'ws')}/v1/socket`

describeWith('openssl', 'a page of another origin', () => {
  beforeAll(async () => {
    people = await People.start()
  })
  afterAll(() => people?.stop())

  it.each(versions)('gets nothing over %s, whatever its browser adds, and may not read the answer', async version => {
    const gateway = await start({ access: people.access })
    const added = { Cookie: `session=${await people.token()}` }
    for (const credential of [added, basic('alice:right').headers, bearer(await people.token()).headers]) {
      for (const question of endpoints) {
        const presented = { headers: { ...credential, Origin: evil } }
        const { status, headers, text } = await ask(gateway.urls, version, question, presented)
        expect({ path: question.path, status, reason: JSON.parse(text).reason }).toEqual({
          path: question.path,
          status: 403,
          reason: 'origin-refused',
        })
        expect(headers).not.toHaveProperty('access-control-allow-origin')
      }
    }
    // One that does not say where it is from: an image, a script, a form without CORS.
    for (const site of [{}, { 'Sec-Fetch-Site': 'cross-site' }, { 'Sec-Fetch-Site': 'same-site' }]) {
      for (const question of endpoints) {
        const answer = await ask(gateway.urls, version, question, { headers: { ...added, ...site } })
        expect({ path: question.path, status: answer.status }).toEqual({ path: question.path, status: 403 })
      }
    }
  })

  it('cannot use up what its visitor has by embedding it, and may link to it', async () => {
    const gateway = await start({ access: people.access })
    const added: readonly Presented[] = [basic('alice:right'), people.certificate('alice')]
    for (const presented of added) {
      for (const site of ['cross-site', 'same-site', 'same-origin', 'none']) {
        for (const [mode, dest] of [
          ['no-cors', 'image'],
          ['navigate', 'iframe'],
          ['navigate', 'object'],
          ['navigate', 'document'],
        ] as const) {
          const fetched = { 'Sec-Fetch-Site': site, 'Sec-Fetch-Mode': mode, 'Sec-Fetch-Dest': dest }
          const question = { path: '/v1/poll?topic=a&timeout=0' }
          const headers = { ...presented.headers, ...fetched }
          const { status } = await ask(gateway.urls, 'https', question, { ...presented, headers })
          const isEmbedded = dest !== 'document' && site.endsWith('-site')
          expect({ site, dest, status }).toEqual({ site, dest, status: isEmbedded ? 403 : 200 })
        }
      }
    }
  })

  it('opens no socket, whatever its browser adds', async () => {
    const gateway = await start({ access: people.access })
    const token = await people.token()
    for (const presented of [
      { headers: { Cookie: `session=${token}`, Origin: evil } },
      { headers: { Cookie: `session=${token}`, Origin: 'null' } },
      { headers: { Cookie: `session=${token}` } },
      { headers: { ...basic('alice:right').headers, Origin: evil } },
      { headers: { Origin: evil }, subprotocols: [`bearer.${token}`] },
    ]) {
      expect((await handshake(socketAt(gateway), { ...presented, protocol: 'mqway' })).status).toBe(403)
    }
  })

  it('publishes nothing with a form, which needs no preflight', async () => {
    const gateway = await start({ access: people.access })
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
      for (const Origin of [evil, 'null']) {
        const headers = { Cookie: `session=${await people.token()}`, Origin, 'content-type': type }
        const question = { method: 'POST', path: '/v1/publish?topic=a', body: 'x', headers }
        expect((await ask(gateway.urls, 'http', question)).status).toBe(403)
      }
    }
    const own = { path: '/v1/poll?topic=%23&last=10&timeout=0', headers: bearer(await people.token()).headers ?? {} }
    const { events } = JSON.parse((await ask(gateway.urls, 'http', own)).text) as { events: { topic: string }[] }
    // Who asks may have been told of already.
    expect(events.filter(({ topic }) => topic === 'a')).toEqual([])
  })

  it('gets no credentials out of a script (JSONP), where that is on', async () => {
    const rules = [
      { to: 'anonymous' as const, subscribe: ['public'] },
      { to: 'authenticated' as const, subscribe: ['own/%u'], publish: ['own/%u', 'public'] },
    ]
    const gateway = await start({ access: { ...people.access, webhook: undefined, rules }, push: { jsonp: true } })
    const token = await people.token()
    const published = { method: 'POST', path: '/v1/publish?topic=own/alice', body: 'secret' }
    expect((await ask(gateway.urls, 'http', published, bearer(token))).status).toBe(201)
    const script = (topic: string) => ({ path: `/v1/poll?topic=${topic}&last=10&timeout=0&callback=take` })
    for (const presented of [
      { headers: { Cookie: `session=${token}`, 'Sec-Fetch-Site': 'cross-site' } },
      { headers: { Cookie: `session=${token}`, 'Sec-Fetch-Site': 'same-origin' } },
      basic('alice:right'),
      bearer(token),
      people.certificate('alice'),
      { query: `&ticket=${await ticketOf(gateway.urls.http, bearer(token))}` },
    ]) {
      const own = await ask(gateway.urls, 'https', script('own/alice'), presented)
      expect({ status: own.status, text: own.text }).toEqual({
        status: 403,
        text: expect.not.stringContaining('secret'),
      })
      const open = await ask(gateway.urls, 'https', script('public'), presented)
      expect(open).toMatchObject({ status: 200, headers: { 'content-type': 'application/javascript; charset=utf-8' } })
      expect(open.text).toMatch(/^\/\*\*\/take\(\{"events":\[\]/)
    }
    const off = await start({ access: { ...people.access, webhook: undefined, rules } })
    expect((await ask(off.urls, 'http', script('public'))).status).toBe(400)
  })

  it('that is allowed may ask with what it sends itself, and is told so in advance', async () => {
    const app = 'https://app.example'
    const gateway = await start({ access: people.access, push: { origins: ['same-origin', app] } })
    for (const { path, method = 'GET', allowed, ...rest } of endpoints) {
      const preflight = (Origin: string) =>
        ask(gateway.urls, 'http', {
          method: 'OPTIONS',
          path,
          headers: {
            Origin,
            'access-control-request-method': method,
            'access-control-request-headers': 'authorization',
          },
        })
      const { status, headers } = await preflight(app)
      expect({ path, status, methods: headers['access-control-allow-methods'] }).toEqual({
        path,
        status: 204,
        methods: allowed,
      })
      expect(headers).toMatchObject({ 'access-control-allow-origin': app, vary: expect.stringMatching(/origin/i) })
      expect(String(headers['access-control-allow-headers']).split(', ')).toContain('authorization')
      expect(headers).toHaveProperty('access-control-allow-credentials', 'true')
      const refused = await preflight(evil)
      expect(refused.status).toBe(403)
      expect(refused.headers).not.toHaveProperty('access-control-allow-origin')
      // It may read the answer, also one that says no.
      for (const presented of [bearer(await people.token()), bearer('a.b.c')]) {
        const question = { path, method, ...rest, headers: { Origin: app } }
        const answer = await ask(gateway.urls, 'http', question, { headers: { Origin: app, ...presented.headers } })
        expect(answer.status).not.toBe(403)
        expect(answer.headers).toMatchObject({ 'access-control-allow-origin': app })
      }
    }
  })
})

describe('a gateway that lets in whoever reaches it, on loopback', () => {
  const rebound = (gateway: TestGateway): string => `evil.example:${new URL(gateway.urls.http).port}`

  it('is nothing to a page whose name was led to it (DNS rebinding)', async () => {
    const gateway = await start({ push: { jsonp: true } })
    const Host = rebound(gateway)
    for (const question of [...endpoints, { path: '/v1/poll?topic=a&timeout=0&callback=x' }]) {
      // To its browser it is the same origin, which sends no Origin with a GET.
      for (const headers of [{ Host }, { Host, Origin: `http://${Host}` }, { Host, 'Sec-Fetch-Site': 'same-origin' }]) {
        const { status, text } = await ask(gateway.urls, 'http', { ...question, headers })
        expect({ path: question.path, status, reason: JSON.parse(text).reason }).toEqual({
          path: question.path,
          status: 421,
          reason: 'host-refused',
        })
      }
    }
    // With a WebSocket there always is one.
    const headers = { Host, Origin: `http://${Host}` }
    expect((await handshake(socketAt(gateway), { headers, protocol: 'mqway' })).status).toBe(421)
  })

  it('is there for programs and pages of its own', async () => {
    const gateway = await start({})
    const { host, port } = new URL(gateway.urls.http)
    for (const Host of [host, `localhost:${port}`, `[::1]:${port}`, `x.localhost:${port}`]) {
      for (const headers of [{ Host }, { Host, Origin: `http://${Host}` }]) {
        expect((await ask(gateway.urls, 'http', { path: '/v1/poll?topic=a&timeout=0', headers })).status).toBe(200)
        expect((await handshake(socketAt(gateway), { headers, protocol: 'mqway' })).status).toBe(101)
      }
    }
  })
})
