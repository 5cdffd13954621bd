import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import net, { type Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { handshake, mqttThrough } from '../helpers/handshake.js'
import { eventually } from '../helpers/wait.js'
import { received } from './rig.js'

const secret = '0123456789abcdef0123456789abcdef'

async function start(limits: ConfigInput['limits'], more: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ access: { jwt: { secret } }, anonymous: true, limits, ...more })
  onTestFinished(() => gateway.close())
  return gateway
}
const ws = (gateway: TestGateway): string => `${gateway.urls.http.replace('http', 'ws')}/mqtt`
const portOf = (gateway: TestGateway): number => Number(new URL(gateway.urls.http).port)

async function refusals(gateway: TestGateway, reason: string): Promise<number> {
  const text = await (await fetch(`${gateway.urls.http}/metrics`)).text()
  return Number(new RegExp(`^mqway_refusals_total\\{reason="${reason}"\\} (\\d+)$`, 'm').exec(text)?.[1])
}

/** The bytes in buffers that somebody still has a hold of. */
function heldBytes(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().arrayBuffers
}

async function raw(gateway: TestGateway, localAddress = '127.0.0.1'): Promise<Socket> {
  const socket = net.connect({ port: portOf(gateway), host: '127.0.0.1', localAddress })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return socket
}

describe('a URL that is too long', () => {
  it('is answered 414, at the API as a problem, and is counted', async () => {
    const gateway = await start({ urlLength: '256B' })
    const long = `?${'x'.repeat(256)}`
    const page = await fetch(`${gateway.urls.http}/${long}`)
    expect([page.status, await page.text()]).toEqual([414, 'The URL is too long.\n'])
    const api = await fetch(`${gateway.urls.http}/v1/tickets${long}`, { method: 'POST' })
    expect([api.status, await api.json()]).toEqual([414, expect.objectContaining({ reason: 'url-too-long' })])
    expect(await handshake(ws(gateway), { query: long })).toMatchObject({ status: 414 })
    expect(await refusals(gateway, 'url-too-long')).toBe(3)
    expect((await fetch(`${gateway.urls.http}/?${'x'.repeat(200)}`)).status).toBe(200)
  })
})

describe('a body', () => {
  it.each([
    ['with its length', 'x'.repeat(2000)],
    ['in chunks', new Blob(['x'.repeat(2000)]).stream()],
  ])('that is too large is answered 413, %s, and is counted', async (_how, body) => {
    const gateway = await start({ bodySize: '1KiB' })
    const response = await fetch(`${gateway.urls.http}/v1/tickets`, { method: 'POST', body, duplex: 'half' } as object)
    expect([response.status, await response.json()]).toEqual([
      413,
      expect.objectContaining({ reason: 'body-too-large' }),
    ])
    expect(await refusals(gateway, 'body-too-large')).toBe(1)
  })

  it('that is too large is answered while it is still being sent', async () => {
    const gateway = await start({ bodySize: '1KiB' })
    const socket = await raw(gateway)
    socket.write(
      'POST /v1/tickets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777216\r\nContent-Type: a/b\r\n\r\n',
    )
    socket.write(Buffer.alloc(16 * 1024 * 1024))
    const [answer] = await once(socket, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1\.1 413 Payload Too Large\r\n.*"body-too-large"\}$/s)
    await eventually(() => socket.writableLength === 0)
    // One that goes on is not listened to for long.
    socket.write('POST /v1/tickets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nContent-Type: a/b\r\n\r\n')
    await once(socket, 'data')
    const drip = setInterval(() => socket.write('x'), 50)
    onTestFinished(() => clearInterval(drip))
    await new Promise(resolve => socket.once('close', resolve))
  })

  it('that comes too slowly is answered 408, and its connection ends, while others are served', async () => {
    const gateway = await start({ bodyTimeout: '1s' })
    const slow = await raw(gateway)
    slow.write('POST /v1/tickets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nContent-Type: a/b\r\n\r\n12')
    const drip = setInterval(() => slow.write('3'), 300)
    onTestFinished(() => clearInterval(drip))
    expect((await fetch(`${gateway.urls.http}/healthz`)).status).toBe(200)
    const answer = await received(slow)
    expect(answer).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n.*connection: close\r\n.*"body-timeout"\}$/s)
    expect(await refusals(gateway, 'body-timeout')).toBe(1)
  })

  it.each(['POST', 'OPTIONS'])('of %s that comes too slowly over HTTP/2 is answered 408', async method => {
    const gateway = await start({ bodyTimeout: '1s' })
    const session = connectHttp2(gateway.urls.https, { rejectUnauthorized: false })
    onTestFinished(() => session.destroy())
    const stream = session.request({ ':path': '/v1/tickets', ':method': method, 'content-type': 'a/b' })
    stream.on('error', () => {})
    stream.write('12')
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(408)
  })

  it.each(['/nothing', '/v1/tickets'])('is not kept in memory while it comes, at %s', async path => {
    const gateway = await start({})
    const megabyte = Buffer.alloc(1_000_000)
    const before = heldBytes()
    const sent = [1, 2].flatMap(() => {
      const session = connectHttp2(gateway.urls.https, { rejectUnauthorized: false })
      onTestFinished(() => session.destroy())
      return Array.from({ length: 100 }, () => {
        const stream = session.request({ ':path': path, ':method': 'POST', 'content-type': 'text/plain' })
        stream.on('error', () => {})
        // The last byte, and with it the answer, never comes.
        return new Promise(resolve => stream.write(megabyte, resolve))
      })
    })
    expect((await Promise.all(sent)).filter(error => error instanceof Error)).toEqual([])
    // What is on its way, also at the sending end, is let go of a moment later; the bodies were 200 MB.
    await eventually(() => heldBytes() - before < 20_000_000)
  })
})

describe('a body over HTTP/2 that nobody reads', () => {
  it.each([
    ['GET', '/healthz', {}, 200],
    ['HEAD', '/healthz', {}, 200],
    ['GET', '/healthz', { 'content-type': 'a/b' }, 200],
    ['POST', '/v1/tickets', {}, 401],
    ['OPTIONS', '/v1/tickets', {}, 204],
    ['OPTIONS', '/v1/tickets', { 'content-type': 'a/b' }, 413],
    ['DELETE', '/v1/tickets', {}, 405],
    ['POST', '/nothing', {}, 405],
  ] as const)(
    'holds its stream no longer than its answer takes, so that the connection can ask on: %s %s %j',
    async (method, path, headers, status) => {
      const gateway = await start({ bodySize: '64KiB' })
      // What waits at this end is not what this is about.
      const session = connectHttp2(gateway.urls.https, { rejectUnauthorized: false, maxSessionMemory: 1000 })
      onTestFinished(() => session.destroy())
      const statuses: unknown[] = []
      const closed = Array.from({ length: 100 }, () => {
        const stream = session.request({ ':path': path, ':method': method, ...headers }, { endStream: false })
        stream.on('error', () => {})
        stream.on('response', answer => statuses.push(answer[':status']))
        stream.resume().write(Buffer.alloc(200_000))
        return new Promise(resolve => stream.once('close', resolve))
      })
      await Promise.all(closed)
      expect(statuses).toEqual(Array(100).fill(status))
      const [answer] = await once(session.request({ ':path': '/healthz' }), 'response')
      expect(answer[':status']).toBe(200)
    },
  )

  it('does not cut off the answer', async () => {
    const gateway = await start({})
    const session = connectHttp2(gateway.urls.https, { rejectUnauthorized: false })
    onTestFinished(() => session.destroy())
    const whole = await (await fetch(`${gateway.urls.http}/vendor/paho-mqtt.js`)).text()
    const stream = session.request({ ':path': '/vendor/paho-mqtt.js' }, { endStream: false })
    stream.write('x')
    let text = ''
    for await (const chunk of stream.setEncoding('utf8')) text += chunk
    expect(text).toBe(whole)
  })
})

describe('new connections', () => {
  it('that come too fast are refused with 429 and Retry-After; other addresses are not', async () => {
    const gateway = await start({ upgradesPerSecond: 1, upgradesBurst: 3 }, { trustedProxies: ['127.0.0.9'] })
    const statuses: number[] = []
    for (let i = 0; i < 4; i++) statuses.push((await handshake(ws(gateway))).status)
    expect(statuses).toEqual([101, 101, 101, 429])
    const refused = await handshake(ws(gateway))
    expect(refused).toMatchObject({
      status: 429,
      text: 'Too many new connections per second from your address\n',
      headers: { 'retry-after': '1' },
    })
    expect(await refusals(gateway, 'connecting-too-fast')).toBe(2)
    // The plain MQTT port counts to the same.
    const plain = net.connect(gateway.mqttPort, '127.0.0.1').resume()
    await once(plain, 'close')
    expect((await handshake(ws(gateway), { localAddress: '127.0.0.2' })).status).toBe(101)
    // Through a trusted proxy it is the client that counts, an IPv6 client as its network.
    const through = async (address: string): Promise<number> => {
      const headers = { 'X-Forwarded-For': address }
      return (await handshake(ws(gateway), { localAddress: '127.0.0.9', headers })).status
    }
    for (const host of ['::1', '::2', ':a:b:c:d']) expect(await through(`2001:db8:0:1${host}`)).toBe(101)
    expect(await through('2001:db8:0:1::4')).toBe(429)
    expect(await through('2001:db8:0:2::1')).toBe(101)
  })
})

describe('the connections of one user', () => {
  it('are counted over WebSocket and MQTT together: 429 with Retry-After', async () => {
    const gateway = await start({ connectionsPerUser: 2 })
    const { SignJWT } = await import('jose')
    const token = await new SignJWT({ sub: 'alice', exp: Math.floor(Date.now() / 1000) + 60 })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(Buffer.from(secret))
    const headers = { Authorization: `Bearer ${token}` }
    const first = await mqttThrough(ws(gateway), { headers })
    const plain = await mqtt.connectAsync(gateway.urls.mqtt, { username: 'x', password: token, reconnectPeriod: 0 })
    onTestFinished(() => void plain.end(true))
    const refused = await handshake(ws(gateway), { headers })
    expect(refused).toMatchObject({ status: 429, headers: { 'retry-after': '10' } })
    expect(await refusals(gateway, 'too-many-from-user')).toBe(1)
    await first.endAsync()
    await eventually(async () => (await handshake(ws(gateway), { headers })).status === 101)
  })
})

describe('somebody who opens 10,000 connections and sends nothing', () => {
  it('holds no more than their share, and others are served meanwhile', { timeout: 60_000 }, async () => {
    const gateway = await start({ connectionsPerAddress: 1000, handshakeTimeout: '2m' })
    const sockets: Socket[] = []
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy()
    })
    let closed = 0
    for (let batch = 0; batch < 20; batch++) {
      const opened = Array.from({ length: 500 }, () => {
        const socket = net.connect({ port: portOf(gateway), host: '127.0.0.1', localAddress: '127.0.0.2' })
        socket.on('error', () => {})
        socket.on('close', () => closed++)
        sockets.push(socket)
        // Half of them begin a request that never ends.
        if (sockets.length % 2 === 0) socket.write('GET /mqtt HTTP/1.1\r\nHost: x\r\n')
        return once(socket, 'connect')
      })
      await Promise.allSettled(opened)
      expect((await handshake(ws(gateway))).status).toBe(101)
      expect((await fetch(`${gateway.urls.http}/healthz`)).status).toBe(200)
    }
    expect(sockets.length).toBe(10_000)
    // Twice connectionsPerAddress: requests for pages come beside the tunnels.
    await eventually(() => closed >= 8000)
    expect(await refusals(gateway, 'too-many-from-address')).toBe(8000)
  })
})
