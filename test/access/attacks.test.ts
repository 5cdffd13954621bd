import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { closeOf, handshake, mqttThrough } from '../helpers/handshake.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { recordingLog } from '../server/rig.js'

/*
 * Attacks on a whole gateway, through its sockets. Those of a browser on a person are in test/browser/access.test.ts,
 * those on topics in test/broker/access.test.ts, floods in test/listen/limits.test.ts.
 */

let people: People
beforeAll(async () => {
  people = await People.start()
})
afterAll(() => people.stop())

async function start(config: ConfigInput, log = recordingLog()): Promise<TestGateway> {
  const gateway = await startTestGateway({ access: people.access, ...config }, log.log)
  onTestFinished(() => gateway.close())
  return gateway
}
const ws = (gateway: TestGateway, path = '/mqtt'): string => `${gateway.urls.http.replace('http', 'ws')}${path}`
const basic = (login: string) => ({ Authorization: `Basic ${Buffer.from(login).toString('base64')}` })

/** A broker that only hears. */
async function startListener(): Promise<{ url: string; heard: () => string }> {
  const chunks: Buffer[] = []
  const sockets: net.Socket[] = []
  const server = net.createServer(socket => {
    sockets.push(socket)
    socket.on('error', () => {}).on('data', chunk => chunks.push(chunk))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `mqtt://127.0.0.1:${port}`, heard: () => Buffer.concat(chunks).toString('latin1') }
}

describeWith('openssl', 'somebody who', () => {
  it('signs with the issuer’s public key as a secret is refused, in whatever form it is taken', async () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' }
    writeFileSync(people.file('jwks.json'), JSON.stringify({ keys: [jwk] }))
    const gateway = await start({ access: { jwt: { jwks: people.file('jwks.json') } } })
    const keys = [
      publicKey.export({ format: 'pem', type: 'spki' }),
      publicKey.export({ format: 'pem', type: 'pkcs1' }),
      JSON.stringify(jwk),
      String(jwk.n),
    ]
    for (const key of keys) {
      for (const header of [{ alg: 'HS256' }, { alg: 'HS256', kid: 'one' }, { alg: 'none', kid: 'one' }]) {
        const token = people.forgedToken(header, String(key))
        for (const presented of [
          { headers: { Authorization: `Bearer ${token}` } },
          { subprotocols: [`bearer.${token}`] },
        ]) {
          const answer = await handshake(ws(gateway), presented)
          expect(answer).toMatchObject({ status: 401, text: expect.stringContaining('algorithm that is not accepted') })
        }
      }
    }
  })

  it('reads the log learns no password, no token, no ticket and no cookie', async () => {
    const log = recordingLog()
    const gateway = await start({ limits: { urlLength: '512B' } }, log)
    const token = await people.token()
    const secrets = [token, basic('alice:right').Authorization.slice(6), basic('alice:wr0ng').Authorization.slice(6)]
    const origin = { Origin: gateway.urls.http }
    const post = (headers: Record<string, string>, query = '') =>
      fetch(`${gateway.urls.http}/v1/tickets${query}`, { method: 'POST', headers })
    for (let i = 0; i < 2; i++) {
      const { ticket } = JSON.parse(await (await post({ Authorization: `Bearer ${token}` })).text())
      secrets.push(ticket)
      const query = `?ticket=${ticket}`
      // Used, used again, where it is of no use, and in what is refused for other reasons.
      expect((await handshake(ws(gateway), { query })).status).toBe(101)
      expect((await handshake(ws(gateway), { query })).status).toBe(401)
      expect((await handshake(ws(gateway, '/nowhere'), { query })).status).toBe(404)
      expect((await handshake(ws(gateway), { query: `${query}&${'x'.repeat(512)}` })).status).toBe(414)
      expect((await handshake(ws(gateway), { query, headers: { Origin: 'https://evil.example' } })).status).toBe(403)
      expect((await post({}, query)).status).toBe(401)
      await fetch(`${gateway.urls.http}/nowhere${query}`)
    }
    for (const presented of [
      { headers: basic('alice:right') },
      { headers: basic('alice:wr0ng') },
      { headers: { Authorization: `Bearer ${token}` } },
      { headers: { Authorization: `Bearer ${token}x` } },
      { headers: { Cookie: `session=${token}`, ...origin } },
      { headers: { Cookie: `session=${token}` } },
      { subprotocols: [`bearer.${token}`] },
      { subprotocols: [`bearer.${token}`, `bearer.${token}`] },
    ]) {
      const { status, client } = await handshake(ws(gateway), presented).catch(() => ({ status: 0, client: undefined }))
      if (status !== 101 || !client) continue
      // An unknown packet: the ending is logged too.
      const closed = closeOf(client)
      client.send(Buffer.from([0]))
      await closed
    }
    const client = await mqttThrough(ws(gateway), {}, { username: 'alice', password: 'right' })
    await client.endAsync()
    const text = JSON.stringify(log.lines)
    expect(text).toContain('alice')
    expect(log.lines.length).toBeGreaterThan(20)
    for (const secret of [...secrets, 'wr0ng']) expect(text).not.toContain(secret)
  })

  it.each([
    'a\r\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2',
    'a"} {"level":60,"msg":"forged"}\n{"x":"',
    '\u001b[2J',
    '\u0085',
    '\u2028',
    'x'.repeat(256),
  ])('is called %j does not get in, and is nowhere in the log', async user => {
    const log = recordingLog()
    const gateway = await start({ tunnels: [{ path: '/mqtt', requireIdentity: true }] }, log)
    const token = await people.token({ sub: user })
    expect((await handshake(ws(gateway), { headers: basic(`${user}:right`) })).status).toBe(401)
    expect((await handshake(ws(gateway), { headers: { Authorization: `Bearer ${token}` } })).status).toBe(401)
    expect(JSON.stringify(log.lines)).not.toContain(JSON.stringify(user).slice(1, -1))
  })

  it.each(['a b', 'a"b', '</script>', 'ünï', '日本', '%0d%0a'])(
    'is called %s has that name in the log, and adds no line',
    async user => {
      const log = recordingLog()
      const gateway = await start({}, log)
      const { client, status } = await handshake(ws(gateway), {
        headers: { Authorization: `Bearer ${await people.token({ sub: user })}` },
      })
      expect(status).toBe(101)
      const closed = closeOf(client)
      client.send(Buffer.from([0]))
      await closed
      expect(await log.line(/CONNECT/)).toMatchObject({ user, identity: 'token' })
    },
  )

  it('lies about the address adds nothing to the PROXY header', async () => {
    const listener = await startListener()
    const gateway = await start({
      anonymous: true,
      trustedProxies: ['127.0.0.1'],
      broker: { url: listener.url, proxyProtocol: 'v1' },
      mqtt: { port: 'off' },
    })
    const lies = [
      '1.2.3.4 5.6.7.8 1 2',
      '::1%\tx',
      '1.2.3.4, x',
      '999.1.1.1',
      'unknown',
      '"[::1]:1"',
      '1.2.3.4:99999',
      '\x80',
    ]
    for (const lie of lies) {
      expect((await handshake(ws(gateway), { headers: { 'X-Forwarded-For': lie } })).status).toBe(101)
    }
    await eventually(() => listener.heard().split('\r\n').length > lies.length)
    const lines = listener.heard().split('\r\n')
    expect(lines.pop()).toBe('')
    expect(lines).toHaveLength(lies.length)
    for (const line of lines) expect(line).toMatch(/^PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+$/)
  })

  it('is a trusted proxy with a certificate of its own does not lend it to others', async () => {
    const gateway = await start({
      trustedProxies: ['127.0.0.1'],
      tunnels: [{ path: '/mqtt', requireIdentity: true }],
      access: { clientCertificates: { ca: people.file('ca.pem') } },
    })
    const url = `${gateway.urls.https.replace('https', 'wss')}/mqtt`
    expect((await handshake(url, people.certificate('alice'))).status).toBe(101)
    const forwarded = { headers: { 'X-Forwarded-For': '192.0.2.1' }, ...people.certificate('alice') }
    expect((await handshake(url, forwarded)).status).toBe(401)
  })

  it('asks for files outside of the pages gets none, with or without a name', async () => {
    const gateway = await start({})
    for (const path of [
      '/../users',
      '/..%2fusers',
      '/%2e%2e/%2e%2e/etc/passwd',
      '/v1/..%2f..%2fetc/passwd',
      '/\\..\\users',
    ]) {
      const socket = net.connect(Number(new URL(gateway.urls.http).port), '127.0.0.1')
      onTestFinished(() => void socket.destroy())
      socket.write(
        `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: ${basic('alice:right').Authorization}\r\n\r\n`,
      )
      let text = ''
      for await (const chunk of socket) text += chunk
      expect(text).toMatch(/^HTTP\/1\.1 40[04] /)
      expect(text).not.toMatch(/root:|\$2[aby]\$/)
    }
  })
})
