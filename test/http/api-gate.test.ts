import { describe, expect, it } from 'vitest'
import { Authenticator } from '../../src/access/authenticator.js'
import { compileClientResolver } from '../../src/access/client-address.js'
import { ConnectionLimits } from '../../src/access/limits.js'
import { compileOrigins } from '../../src/access/origins.js'
import { RateLimits } from '../../src/access/rate-limits.js'
import { Tickets } from '../../src/access/tickets.js'
import { TopicRules } from '../../src/access/topic-rules.js'
import { UserLimits } from '../../src/access/user-limits.js'
import { anonymous, identityOf } from '../../src/base/identity.js'
import { ApiGate, type ApiGateOptions } from '../../src/http/api-gate.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import { serve } from './rig.js'

const tickets = new Tickets({ expires: 30_000, max: 100, state: new MemoryState() })

function gateOf(more: Partial<ApiGateOptions> = {}): ApiGate {
  return new ApiGate({
    allowsOrigin: compileOrigins(['same-origin', 'https://a.example']),
    resolveClient: compileClientResolver([]),
    authenticator: new Authenticator({ tickets, acceptsCertificates: false, allowsAnonymous: true }),
    rules: new TopicRules(
      { rules: [{ to: { user: 'ada' }, publish: ['a/#'], subscribe: [] }] },
      { topicLevels: 32, topicLength: 1024 },
    ),
    credentials: {},
    connections: new ConnectionLimits({ connections: 3, connectionsPerAddress: 2 }),
    users: new UserLimits(1),
    ...more,
  })
}

async function serveGate(gate: ApiGate, admission = {}): Promise<string> {
  return serve(app => {
    app.get('/v1/who', async (request, reply) => {
      const { identity, permissions } = await gate.admit(request, reply, admission)
      return { user: identity.user ?? null, publishes: permissions.mayPublish('a/b') }
    })
    gate.registerOtherMethods(app, { url: '/v1/who', allowed: ['GET'], headers: 'x' })
  })
}

describe('the gate', () => {
  it('finds out who asks, and what they may do', async () => {
    const url = await serveGate(gateOf())
    const { ticket } = await tickets.issue(identityOf('ada', 'token'))
    expect(await (await fetch(`${url}/v1/who?ticket=${ticket}`)).json()).toEqual({ user: 'ada', publishes: true })
    expect(await (await fetch(`${url}/v1/who`)).json()).toEqual({ user: null, publishes: false })
    expect((await fetch(`${url}/v1/who?ticket=${ticket}`)).status).toBe(401)
  })

  it('looks at no credential where the answer is for everybody', async () => {
    const url = await serveGate(gateOf(), { withoutCredentials: true })
    const { ticket } = await tickets.issue(identityOf('ada', 'token'))
    expect(await (await fetch(`${url}/v1/who?ticket=${ticket}`)).json()).toEqual({ user: null, publishes: false })
  })

  it('lets pages of other origins in as they are named, and tells their browser so', async () => {
    const url = await serveGate(gateOf())
    const known = await fetch(`${url}/v1/who`, { headers: { origin: 'https://a.example' } })
    expect([known.status, known.headers.get('access-control-allow-origin'), known.headers.get('vary')]).toEqual([
      200,
      'https://a.example',
      'origin',
    ])
    const stranger = await fetch(`${url}/v1/who`, { headers: { origin: 'https://b.example' } })
    expect([stranger.status, stranger.headers.get('access-control-allow-origin')]).toEqual([403, null])
    const preflight = { method: 'OPTIONS', headers: { origin: 'https://a.example' } }
    const answer = await fetch(`${url}/v1/who`, preflight)
    expect([answer.status, answer.headers.get('access-control-allow-methods')]).toEqual([204, 'GET'])
  })

  it('lets the browser of listed pages add what it has, and no other', async () => {
    const allowsOrigin = compileOrigins(['*'])
    const url = await serveGate(gateOf({ allowsOrigin, allowsCredentials: compileOrigins(['https://a.example']) }))
    const said = async (origin: string, method = 'GET') => {
      const { headers } = await fetch(`${url}/v1/who`, { method, headers: { origin } })
      return [headers.get('access-control-allow-origin'), headers.get('access-control-allow-credentials')]
    }
    expect(await said('https://a.example')).toEqual(['https://a.example', 'true'])
    expect(await said('https://a.example', 'OPTIONS')).toEqual(['https://a.example', 'true'])
    for (const origin of ['https://b.example', 'null']) expect(await said(origin)).toEqual([origin, null])
  })

  it('says when to come again to whoever asks too often', async () => {
    const url = await serveGate(gateOf({ requests: new RateLimits({ perSecond: 0.01, burst: 2 }) }))
    const answers = [await fetch(`${url}/v1/who`), await fetch(`${url}/v1/who`), await fetch(`${url}/v1/who`)]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429])
    expect(Number(answers[2]?.headers.get('retry-after'))).toBeGreaterThan(90)
    expect(await answers[2]?.json()).toMatchObject({ reason: 'too-many-requests' })
  })

  it('counts what stays open: in all, of each address, of each user', () => {
    const gate = gateOf()
    const from = (address: string, identity = anonymous) => ({
      client: { ...compileClientResolver([])({ headers: {}, socket: {} }), address },
      identity,
      permissions: gate.permissionsOf(identity),
    })
    const first = gate.hold(from('192.0.2.1', identityOf('ada', 'token')))
    expect(() => gate.hold(from('192.0.2.1', identityOf('ada', 'token')))).toThrow('Too many connections of this user')
    gate.hold(from('192.0.2.1'))
    expect(() => gate.hold(from('192.0.2.1'))).toThrow('Too many connections from your address')
    first()
    first()
    gate.hold(from('192.0.2.1', identityOf('ada', 'token')))
    gate.hold(from('192.0.2.2'))
    expect(() => gate.hold(from('192.0.2.3'))).toThrow('All connections are taken')
  })
})
