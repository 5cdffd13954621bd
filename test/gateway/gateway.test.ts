import { once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import mqtt, { MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { eventually } from '../helpers/wait.js'

const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
const start = async (config?: ConfigInput): Promise<TestGateway> => {
  const gateway = await startTestGateway(config)
  closers.push(() => gateway.close())
  return gateway
}
const ws = (gateway: TestGateway, path = '/mqtt'): string => `${gateway.urls.http.replace('http', 'ws')}${path}`
const connect = async (url: string): Promise<MqttClient> => {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, rejectUnauthorized: false })
  closers.push(() => client.end(true))
  return client
}
interface Refusal {
  status: number
  text: string
  headers: http.IncomingHttpHeaders
}
/** Opens a WebSocket and resolves with `open`, or with the status and text of the refusal. */
const attempt = async (url: string, headers: Record<string, string> = {}): Promise<'open' | Refusal> => {
  const client = new WebSocket(url, 'mqtt', { headers })
  closers.push(() => client.terminate())
  client.on('error', () => {})
  const refusal = new Promise<Refusal>(resolve => {
    client.on('unexpected-response', async (_request, response) => {
      const text: Buffer[] = []
      for await (const chunk of response) text.push(chunk)
      resolve({ status: response.statusCode ?? 0, text: Buffer.concat(text).toString(), headers: response.headers })
    })
  })
  return Promise.race([
    once(client, 'open').then(
      () => 'open' as const,
      () => refusal,
    ),
    refusal,
  ])
}
const metric = async (gateway: TestGateway, line: string): Promise<number> => {
  const text = await (await fetch(`${gateway.urls.http}/metrics`)).text()
  const found = text.split('\n').find(candidate => candidate.startsWith(`${line} `))
  return found === undefined ? Number.NaN : Number(found.slice(line.length + 1))
}
/** A broker that only says what it was sent. */
const startRecorder = async (): Promise<{ url: string; received: () => Buffer }> => {
  const chunks: Buffer[] = []
  const server = net.createServer(socket => {
    socket.on('data', chunk => chunks.push(chunk))
    socket.on('error', () => {})
    closers.push(() => socket.destroy())
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  closers.push(() => server.close())
  return { url: `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`, received: () => Buffer.concat(chunks) }
}

describe('several tunnels', () => {
  it('each lead to their own broker, by path, prefix, suffix or pattern; the first that matches is taken', async () => {
    const other = await start()
    const gateway = await start({
      tunnels: [
        { path: '/mqtt' },
        { pathPrefix: '/other', broker: other.urls.mqtt },
        { pathSuffix: '.mqtt', broker: other.urls.mqtt },
        { pathPattern: '^/t[0-9]+$', broker: other.urls.mqtt },
      ],
    })
    const atHome = await connect(gateway.urls.mqtt)
    const elsewhere = await connect(other.urls.mqtt)
    await atHome.subscribeAsync('where')
    await elsewhere.subscribeAsync('where')
    for (const [path, listener] of [
      ['/mqtt', atHome],
      ['/mqtt/', atHome],
      ['/mqtt?token=x', atHome],
      ['/otherwise', elsewhere],
      ['/a/b.mqtt', elsewhere],
      ['/t42', elsewhere],
    ] as const) {
      const arrived = nextMessage(listener)
      const client = await connect(ws(gateway, path))
      await client.publishAsync('where', path)
      expect(String((await arrived).payload)).toBe(path)
    }
    expect(await attempt(ws(gateway, '/mqttx'))).toMatchObject({
      status: 404,
      text: expect.stringContaining('no WebSocket endpoint'),
    })
  })

  it('share one built-in broker, also with the plain MQTT port', async () => {
    const gateway = await start({ tunnels: [{ path: '/a' }, { path: '/b' }] })
    const [a, b, plain] = [
      await connect(ws(gateway, '/a')),
      await connect(ws(gateway, '/b')),
      await connect(gateway.urls.mqtt),
    ]
    await Promise.all([a, b].map(client => client.subscribeAsync('x')))
    const arrived = Promise.all([a, b].map(nextMessage))
    await plain.publishAsync('x', 'y')
    expect((await arrived).map(({ payload }) => String(payload))).toEqual(['y', 'y'])
  })
})

describe('who may connect', () => {
  it('by default: programs, and pages of the same origin; pages of others are told 403', async () => {
    const gateway = await start()
    expect(await attempt(ws(gateway))).toBe('open')
    expect(await attempt(ws(gateway), { Origin: gateway.urls.http })).toBe('open')
    expect(await attempt(ws(gateway), { Origin: 'https://evil.example' })).toMatchObject({
      status: 403,
      text: expect.stringContaining('origin'),
    })
    // A name that was rebound to this machine is no protection (DNS rebinding).
    expect(await attempt(ws(gateway), { Origin: 'http://evil.example', Host: 'evil.example' })).toMatchObject({
      status: 421,
    })
  })

  it('pages that are listed', async () => {
    const gateway = await start({ tunnels: [{ path: '/mqtt', origins: ['https://*.good.example'] }] })
    expect(await attempt(ws(gateway), { Origin: 'https://app.good.example' })).toBe('open')
    expect(await attempt(ws(gateway), { Origin: 'https://good.example.evil' })).toMatchObject({ status: 403 })
  })

  it('as many as the limits say: 429 with Retry-After for one address, 503 for all, and again when somebody has left', async () => {
    const gateway = await start({ limits: { connections: 3, connectionsPerAddress: 2 }, trustedProxies: ['loopback'] })
    const from = (address: string) => attempt(ws(gateway), { 'X-Forwarded-For': address })
    expect([await from('192.0.2.1'), await from('192.0.2.1')]).toEqual(['open', 'open'])
    const perAddress = await from('192.0.2.1')
    expect(perAddress).toMatchObject({
      status: 429,
      text: expect.stringContaining('your address'),
      headers: { 'retry-after': '10' },
    })
    expect(await from('192.0.2.2')).toBe('open')
    expect(await from('192.0.2.3')).toMatchObject({ status: 503, headers: { 'retry-after': '10' } })
    expect(await metric(gateway, 'mqway_refusals_total{reason="too-many-from-address"}')).toBe(1)
    await closers.pop()?.()
    await closers.pop()?.()
    await closers.pop()?.()
    await eventually(() => gateway.gateway.connections < 3)
    expect(await from('192.0.2.4')).toBe('open')
  })

  it('counting those whose broker is still being dialled, also when they have left', async () => {
    // It accepts, and never answers the TLS handshake.
    const recorder = await startRecorder()
    const broker = { url: recorder.url.replace('mqtt:', 'mqtts:'), connectTimeout: '2s' }
    const gateway = await start({ limits: { connections: 2 }, broker })
    const leavers = await Promise.all(
      [1, 2].map(async () => {
        const socket = net.connect(Number(new URL(gateway.urls.http).port), '127.0.0.1')
        socket.write(
          'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
            'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
        )
        await once(socket, 'connect')
        return socket
      }),
    )
    const opening = 'mqway_connections{transport="websocket",state="opening"}'
    await eventually(async () => (await metric(gateway, opening)) === 2)
    for (const socket of leavers) socket.resetAndDestroy()
    expect(await attempt(ws(gateway))).toMatchObject({ status: 503 })
    await eventually(async () => (await metric(gateway, opening)) === 0)
    expect(await attempt(ws(gateway))).toMatchObject({ status: 504 })
  })

  it('the address of a client comes from a trusted proxy alone, and reaches the broker with the PROXY protocol', async () => {
    for (const [trustedProxies, expected] of [
      [['loopback'], '203.0.113.9'],
      [[], '127.0.0.1'],
    ] as const) {
      const recorder = await startRecorder()
      const gateway = await start({
        trustedProxies: [...trustedProxies],
        broker: { url: recorder.url, proxyProtocol: 'v1' },
      })
      expect(await attempt(ws(gateway), { 'X-Forwarded-For': '203.0.113.9' })).toBe('open')
      await eventually(() => recorder.received().includes('\r\n'))
      expect(recorder.received().toString()).toMatch(
        new RegExp(`^PROXY TCP4 ${expected.replaceAll('.', '\\.')} 127\\.0\\.0\\.1 \\d+ \\d+\r\n$`),
      )
    }
  })
})

describe('the metrics', () => {
  it('count connections by transport and state, bytes and frames each way, refusals and endings by reason', async () => {
    const gateway = await start()
    expect(await metric(gateway, 'mqway_connections{transport="websocket",state="open"}')).toBe(0)
    expect(await metric(gateway, 'mqway_endings_total{reason="client-closed"}')).toBe(0)
    const [browser, tool] = [await connect(ws(gateway)), await connect(gateway.urls.mqtt)]
    expect(await metric(gateway, 'mqway_connections{transport="websocket",state="open"}')).toBe(1)
    expect(await metric(gateway, 'mqway_connections{transport="tcp",state="open"}')).toBe(1)
    expect(await metric(gateway, 'mqway_bytes_total{transport="tcp",direction="out"}')).toBe(4)
    expect(await metric(gateway, 'mqway_frames_total{transport="websocket",direction="out"}')).toBe(1)
    await Promise.all([browser.endAsync(), tool.endAsync()])
    await eventually(() => gateway.gateway.connections === 0)
    expect(await metric(gateway, 'mqway_endings_total{reason="client-closed"}')).toBeGreaterThanOrEqual(1)
    expect(await metric(gateway, 'mqway_connections{transport="websocket",state="open"}')).toBe(0)
    // What has passed stays counted.
    expect(await metric(gateway, 'mqway_bytes_total{transport="tcp",direction="out"}')).toBeGreaterThanOrEqual(4)
    expect(await metric(gateway, 'mqway_upstream_connect_seconds_count')).toBe(2)
    expect(await metric(gateway, 'nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0)
  })
})

describe('a gateway on Unix sockets', () => {
  it('serves pages, tunnels and MQTT there', async () => {
    const directory = (await start()).directory
    const at = (name: string): string => `unix:${join(directory, name)}`
    await start({ http: { port: at('http') }, https: { port: 'off' }, mqtt: { port: at('mqtt') } })
    const response = await new Promise<http.IncomingMessage>(resolve => {
      http.get({ socketPath: join(directory, 'http'), path: '/healthz' }, resolve)
    })
    expect(response.statusCode).toBe(200)
    response.destroy()
    const client = new MqttClient(() => net.connect(join(directory, 'mqtt')), { reconnectPeriod: 0 })
    closers.push(() => client.end(true))
    await client.publishAsync('x', 'y', { qos: 1 })
  })

  it.each([{ push: 'off' as const }, { broker: 'mqtt://127.0.0.1:9' }])(
    'says to who looks for the HTTP API why there is none: %j',
    async config => {
      const gateway = await start(config)
      const answer = await fetch(`${gateway.urls.http}/v1/events?topic=a`)
      expect([answer.status, answer.headers.get('content-type')]).toEqual([404, 'application/problem+json'])
      expect(await answer.json()).toMatchObject({
        detail: expect.stringMatching(/^Push is off: .*push\.topics/),
      })
      const pushing = await start()
      expect(await (await fetch(`${pushing.urls.http}/v1/nothing`)).json()).not.toHaveProperty('detail')
    },
  )
})

describe('a gateway that cannot start', () => {
  it('leaves nothing open', async () => {
    const first = await start()
    const port = first.mqttPort
    const before = process.getActiveResourcesInfo().length
    await expect(startTestGateway({ mqtt: { port } })).rejects.toMatchObject({ name: 'StartError', exitCode: 69 })
    await eventually(() => process.getActiveResourcesInfo().length <= before)
  })
})
