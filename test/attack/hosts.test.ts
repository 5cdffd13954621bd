import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway } from '../helpers/gateway.js'

async function attacked(config: ConfigInput = {}): Promise<{ readonly http: string }> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return gateway.urls
}

const access = { jwt: { secret: 'a secret of more than thirty-two bytes' } }

/** The status of a request with these header lines. */
async function statusOf(url: string, start: string, ...lines: string[]): Promise<number> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  let text = ''
  socket.on('data', chunk => {
    text += chunk
  })
  socket.write(`${[`${start} HTTP/1.1`, ...lines, 'Connection: close'].join('\r\n')}\r\n\r\n`)
  await once(socket, 'data')
  socket.destroy()
  return Number(text.slice(9, 12))
}

const upgrade = ['Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==']

async function upgradeStatus(url: string, ...hosts: string[]): Promise<number> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  const lines = ['GET /mqtt HTTP/1.1', ...hosts, 'Connection: Upgrade', ...upgrade]
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  const [chunk] = await once(socket, 'data')
  socket.destroy()
  return Number(String(chunk).slice(9, 12))
}

const paths = ['/', '/healthz', '/readyz', '/metrics', '/v1/poll?topic=a&timeout=0', '/rrr/?handle=1', '/missing']

describe('a gateway that listens on loopback', () => {
  it.each([
    ['without access', {}],
    ['with access', { access }],
  ])('answers no page whose name was led to it (DNS rebinding), %s', async (_, config) => {
    const gateway = await attacked(config)
    for (const path of paths) {
      expect([path, await statusOf(gateway.http, `GET ${path}`, 'Host: evil.example')]).toEqual([path, 421])
    }
    expect(await upgradeStatus(gateway.http, 'Host: evil.example')).toBe(421)
    expect(await statusOf(gateway.http, 'GET /healthz', 'Host: localhost')).toBe(200)
    expect(await upgradeStatus(gateway.http, 'Host: localhost')).toBe(101)
  })

  it('answers for the names of hosts, also behind a proxy', async () => {
    const gateway = await attacked({ hosts: ['a.example'], trustedProxies: ['loopback'] })
    const status = (...lines: string[]): Promise<number> => statusOf(gateway.http, 'GET /healthz', ...lines)
    expect(await status('Host: a.example')).toBe(200)
    expect(await status('Host: localhost', 'X-Forwarded-Host: a.example')).toBe(200)
    expect(await status('Host: localhost', 'X-Forwarded-Host: evil.example')).toBe(421)
    expect(await status('Host: evil.example', 'X-Forwarded-Host: a.example')).toBe(421)
  })
})

describe('any gateway', () => {
  it('refuses a request with two hosts or none', async () => {
    const gateway = await attacked()
    for (const hosts of [['Host: localhost', 'Host: localhost'], ['Host: localhost', 'HOST: evil.example'], []]) {
      expect(await statusOf(gateway.http, 'GET /healthz', ...hosts)).toBe(400)
      if (hosts.length > 0) expect(await upgradeStatus(gateway.http, ...hosts)).toBe(400)
    }
  })

  it("answers no navigation from another site's page, which would take a message away", async () => {
    const gateway = await attacked({ push: { origins: ['same-origin', 'null'] } })
    const status = (...lines: string[]): Promise<number> =>
      statusOf(gateway.http, 'GET /rrr/?handle=1', 'Host: localhost', ...lines)
    const publish = new URL('/v1/publish?topic=push/1', gateway.http)
    const foreign = 'Sec-Fetch-Site: cross-site'
    expect(await status(foreign, 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Dest: document')).toBe(403)
    expect(await status(foreign, 'Sec-Fetch-Mode: no-cors', 'Sec-Fetch-Dest: image')).toBe(403)
    await fetch(publish, { method: 'POST', body: 'first' })
    expect(await status(foreign, 'Sec-Fetch-Mode: cors', 'Origin: null')).toBe(200)
    await fetch(publish, { method: 'POST', body: 'second' })
    expect(await status('Sec-Fetch-Site: none', 'Sec-Fetch-Mode: navigate')).toBe(200)
  })

  it('tells the address of its broker to those alone who may read its metrics', async () => {
    const gateway = await attacked({ metrics: { allow: ['192.0.2.1'] } })
    const answer = await fetch(new URL('/readyz', gateway.http))
    expect([answer.status, await answer.json()]).toEqual([200, { status: 'ready' }])
  })

  it('counts requests for tickets', async () => {
    const gateway = await attacked({ access, limits: { requestsPerSecond: 1, requestsBurst: 2 } })
    const ask = async (): Promise<number> =>
      (await fetch(new URL('/v1/tickets', gateway.http), { method: 'POST' })).status
    expect([await ask(), await ask(), await ask()]).toEqual([401, 401, 429])
  })
})
