import { afterAll, beforeAll, expect, it } from 'vitest'
import { ask, type Question, type Version, versions } from '../helpers/asking.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { handshake, type Presented } from '../helpers/handshake.js'
import {
  allowedIdentities,
  basic,
  bearer,
  deniedIdentities,
  type IdentityRow,
  type Stage,
} from '../helpers/identities.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/*
 * Every identity at every endpoint of push, and at two of them over each version of HTTP: who gets in, and how those who do not are
 * told. Those at the tunnels are in test/access/identities.test.ts.
 */

let people: People
let gateway: TestGateway
/** An event of each user's own topic. */
const events = new Map<string, string>()

interface Endpoint {
  readonly name: string
  /** What `user` asks for: something of their own, or of somebody else's. */
  readonly question: (user: string) => Question
  readonly status: number
  /** Whether there is something to be refused for its topic, and how the refusal names it. */
  readonly names?: (user: string) => string
}

const own = (user: string): string => `own/${user}`
const json = { 'content-type': 'application/json' }

const endpoints: readonly Endpoint[] = [
  { name: 'GET /v1/events', question: user => ({ path: `/v1/events?topic=${own(user)}` }), status: 200, names: own },
  {
    name: 'GET /v1/poll',
    question: user => ({ path: `/v1/poll?topic=${own(user)}&timeout=0` }),
    status: 200,
    names: own,
  },
  {
    name: 'POST /v1/publish',
    question: user => ({ method: 'POST', path: `/v1/publish?topic=${own(user)}`, body: 'hello' }),
    status: 201,
    names: own,
  },
  {
    name: 'POST /v1/publish, as a batch',
    question: user => ({
      method: 'POST',
      path: '/v1/publish',
      body: JSON.stringify({ messages: [{ topic: own(user), payload: 'hello' }] }),
      headers: json,
    }),
    status: 201,
    names: own,
  },
  {
    name: 'POST /v1/receipts',
    question: user => ({
      method: 'POST',
      path: '/v1/receipts',
      body: JSON.stringify({ id: events.get(user), status: 'received' }),
      headers: json,
    }),
    // It is known from the first time on.
    status: 200,
    names: () => 'The topic of this event',
  },
  {
    name: 'GET /v1/receipts',
    question: user => ({ path: `/v1/receipts?id=${events.get(user)}` }),
    status: 200,
    names: () => 'The topic of this event',
  },
  {
    name: 'GET /v1/presence',
    question: user => ({ path: `/v1/presence?topic=${own(user)}` }),
    status: 200,
    names: own,
  },
  { name: 'GET /v1/openapi.json', question: () => ({ path: '/v1/openapi.json' }), status: 200 },
  {
    name: 'POST /v1/connections/…',
    question: () => ({ method: 'POST', path: '/v1/connections/AAAAAAAAAAAAAAAAAAAAAA' }),
    status: 404,
  },
]

/** Ten wrong passwords are all that one address has at once. */
let addresses = 0
const anotherAddress = (): string => `127.8.${Math.floor(++addresses / 250)}.${1 + (addresses % 250)}`

const stageOf = (version: Version | 'ws' | 'wss'): Stage => ({
  people,
  http: gateway.urls.http,
  page: version === 'http' || version === 'ws' ? gateway.urls.http : gateway.urls.https,
})
const versionsOf = (row: IdentityRow): readonly Version[] =>
  row.only === 'websocket' ? [] : versions.filter(version => row.only !== 'tls' || version !== 'http')
/** All of them over the first version that an identity is for; one that reads and one that writes over the others. */
const endpointsOver = (version: Version, row: IdentityRow): readonly Endpoint[] =>
  version === versionsOf(row)[0] ? endpoints : endpoints.slice(1, 3)
const schemesOf = (row: IdentityRow): readonly ('ws' | 'wss')[] => (row.only === 'tls' ? ['wss'] : ['ws', 'wss'])
const socketAt = (scheme: 'ws' | 'wss', path: string): string =>
  `${(scheme === 'ws' ? gateway.urls.http : gateway.urls.https).replace('http', 'ws')}${path}`

/** What a socket presents beside its own subprotocol. */
const forSocket = ({ query = '', ...presented }: Presented, path: string): [path: string, Presented] => [
  `${path}${query.replace('?', '&')}`,
  { ...presented, protocol: 'mqway' },
]

const challenge = 'Bearer realm="mqway", Basic realm="mqway", charset="UTF-8"'
const reasons: Readonly<Record<number, string>> = {
  401: 'identity-refused',
  403: 'origin-refused',
  503: 'identity-unavailable',
}

describeWith('openssl', 'push', () => {
  beforeAll(async () => {
    people = await People.start()
    gateway = await startTestGateway({
      access: { ...people.access, rules: [{ to: 'authenticated', publish: ['own/%u'], subscribe: ['own/%u'] }] },
    })
    await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
    for (const [user, login] of [
      ['alice', 'alice:right'],
      ['carol', 'carol:hook'],
    ] as const) {
      const publish = { method: 'POST', path: `/v1/publish?topic=${own(user)}`, body: 'first' }
      const { id } = JSON.parse((await ask(gateway.urls, 'http', publish, basic(login))).text)
      events.set(user, id)
      const received = { method: 'POST', path: '/v1/receipts', body: JSON.stringify({ id, status: 'received' }) }
      expect((await ask(gateway.urls, 'http', received, basic(login))).status).toBe(201)
    }
  })
  afterAll(async () => {
    await gateway?.close()
    await people?.stop()
  })

  for (const row of allowedIdentities) {
    const other = row.user === 'alice' ? 'carol' : 'alice'
    for (const version of versionsOf(row)) {
      it.each(endpointsOver(version, row))(
        `lets ${row.who} in over ${version}, at $name, and to nothing of others`,
        async ({ question, status, names }) => {
          const answer = await ask(gateway.urls, version, question(row.user), await row.present(stageOf(version)))
          expect(answer).toMatchObject({ status })
          expect(answer.headers['www-authenticate']).toBeUndefined()
          if (!names) return
          const refused = await ask(gateway.urls, version, question(other), await row.present(stageOf(version)))
          expect(refused).toMatchObject({ status: 403, headers: { 'content-type': 'application/problem+json' } })
          expect(JSON.parse(refused.text)).toMatchObject({
            type: 'about:blank',
            title: 'Forbidden',
            status: 403,
            reason: 'topic-refused',
            detail: expect.stringContaining(names(other)),
          })
        },
      )
    }
    it.each(schemesOf(row))(`lets ${row.who} in over %s, at /v1/socket, and to nothing of others`, async scheme => {
      const open = async (user: string) => {
        const [path, presented] = forSocket(await row.present(stageOf(scheme)), `/v1/socket?topic=${own(user)}`)
        return handshake(socketAt(scheme, path), presented)
      }
      const answer = await open(row.user)
      expect(answer).toMatchObject({ status: 101, headers: { 'sec-websocket-protocol': 'mqway' } })
      const refused = await open(other)
      expect(refused).toMatchObject({ status: 403, text: `This topic is not open to you: ${own(other)}\n` })
    })
  }

  for (const row of deniedIdentities) {
    for (const version of versionsOf(row)) {
      it.each(endpointsOver(version, row))(
        `does not let ${row.who} in over ${version}, at $name: ${row.status}`,
        async ({ question }) => {
          const presented = { ...(await row.present(stageOf(version))), localAddress: anotherAddress() }
          const { status, headers, text } = await ask(gateway.urls, version, question('alice'), presented)
          expect({ status, type: headers['content-type'] }).toEqual({
            status: row.status,
            type: 'application/problem+json',
          })
          const problem = { type: 'about:blank', status, reason: reasons[status], detail: expect.any(String) }
          expect(JSON.parse(text)).toMatchObject(problem)
          expect(headers['www-authenticate']).toBe(status === 401 ? challenge : undefined)
          expect(headers['retry-after']).toBe(status === 503 ? '5' : undefined)
          expect(headers['cache-control']).toBe('no-store')
        },
      )
    }
    it.each(schemesOf(row))(`does not let ${row.who} in over %s, at /v1/socket: ${row.status}`, async scheme => {
      const [path, presented] = forSocket(await row.present(stageOf(scheme)), '/v1/socket?topic=own/alice')
      const answer = await handshake(socketAt(scheme, path), { ...presented, localAddress: anotherAddress() })
      expect(answer).toMatchObject({ status: row.status })
      expect(answer.headers['www-authenticate']).toBe(row.status === 401 ? challenge : undefined)
      expect(answer.headers['retry-after']).toBe(row.status === 503 ? '5' : undefined)
    })
  }

  it.each(versions)('does not let in over %s who does not say who they are', async version => {
    for (const { question } of endpoints) {
      const { status, headers } = await ask(gateway.urls, version, question('alice'))
      expect({ status, challenge: headers['www-authenticate'] }).toEqual({ status: 401, challenge })
    }
    expect(await handshake(socketAt('wss', '/v1/socket'), { protocol: 'mqway' })).toMatchObject({ status: 401 })
  })

  it('tells a script what it wants without having its browser ask for a password', async () => {
    const script = { headers: { 'sec-fetch-mode': 'cors' } }
    for (const { question } of endpoints) {
      const { headers } = await ask(gateway.urls, 'http', question('alice'), script)
      expect(headers['www-authenticate']).toBe('Bearer realm="mqway", xBasic realm="mqway", charset="UTF-8"')
    }
  })

  it('takes no token from a URL, whatever it is called', async () => {
    const token = await people.token()
    for (const name of ['token', 'access_token', 'authorization', 'bearer', 'jwt', 'session', 'auth']) {
      const presented = { query: `?${name}=${token}` }
      expect((await ask(gateway.urls, 'http', { path: '/v1/poll?topic=own/alice' }, presented)).status).toBe(401)
    }
  })

  it('takes a ticket once, whichever endpoint it is used at', async () => {
    const present = allowedIdentities.find(({ who }) => who === 'a ticket')?.present
    for (const first of endpoints) {
      const ticket = (await present?.(stageOf('http'))) ?? {}
      expect((await ask(gateway.urls, 'http', first.question('alice'), ticket)).status).toBe(first.status)
      for (const { question } of endpoints) {
        const answer = await ask(gateway.urls, 'http', question('alice'), ticket)
        expect({ status: answer.status, text: answer.text }).toEqual({
          status: 401,
          text: expect.stringContaining('used already'),
        })
      }
    }
  })

  it('never echoes a token of a subprotocol, and wants none beside it', async () => {
    const token = await people.token()
    const { status, headers } = await handshake(socketAt('ws', '/v1/socket'), {
      protocol: `bearer.${token}`,
    })
    expect([status, headers['sec-websocket-protocol']]).toEqual([101, undefined])
    const answer = await ask(gateway.urls, 'http', { path: '/v1/poll?topic=own/alice&timeout=0' }, bearer(token))
    expect(answer.status).toBe(200)
  })
})
