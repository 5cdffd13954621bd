import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { internalPeer, type Peer } from '../../src/broker/broker.js'
import { proxyHeaderV1, proxyHeaderV2 } from '../../src/broker/upstream/proxy-protocol.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { ask } from '../helpers/asking.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { mqttThrough } from '../helpers/handshake.js'
import { eventually } from '../helpers/wait.js'

const proxyProtocol = true
const client: Peer = { address: '203.0.113.7', port: 4711, localAddress: '203.0.113.1', localPort: 443 }

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({
    trustedProxies: ['loopback'],
    hosts: ['*'],
    http: { proxyProtocol },
    https: { proxyProtocol },
    mqtt: { proxyProtocol },
    mqtts: { port: 0, proxyProtocol },
    ...config,
  })
  onTestFinished(() => gateway.close())
  return gateway
}

/** A proxy in front of a port: it writes `header` together with the first bytes of its client, or byte by byte before them. */
async function startProxy(url: string, header: Buffer, byBytes = false): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer(incoming => {
    const outgoing = connect(Number(new URL(url).port), '127.0.0.1')
    for (const socket of [incoming, outgoing]) sockets.add(socket.on('error', () => {}))
    incoming.once('data', async first => {
      outgoing.setNoDelay(true)
      if (byBytes) for (const byte of header) await new Promise(done => outgoing.write(Buffer.of(byte), done))
      outgoing.write(byBytes ? first : Buffer.concat([header, first]))
      incoming.pipe(outgoing).pipe(incoming)
    })
  })
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

async function clientsOf(gateway: TestGateway): Promise<unknown[]> {
  const port = await startProxy(gateway.urls.http, proxyHeaderV2(internalPeer))
  const response = await fetch(`http://127.0.0.1:${port}/v1/clients`)
  const { clients } = JSON.parse(await response.text())
  return clients.map(({ address, transport }: Record<string, unknown>) => [transport, address])
}

describe('a port with proxyProtocol', () => {
  it.each([
    ['http', 'websocket'],
    ['https', 'websocket'],
    ['mqtt', 'tcp'],
    ['mqtts', 'tls'],
  ] as const)('gives clients of %s the address that the proxy names', async (scheme, transport) => {
    const gateway = await start()
    for (const [header, byBytes] of [
      [proxyHeaderV1(client), false],
      [proxyHeaderV2(client), true],
    ] as const) {
      const port = await startProxy(gateway.urls[scheme], header, byBytes)
      const url = `${scheme.replace('http', 'ws')}://127.0.0.1:${port}`
      const connected = scheme.startsWith('http')
        ? await mqttThrough(`${url}/mqtt`)
        : await mqtt.connectAsync(url, { rejectUnauthorized: false, reconnectPeriod: 0 })
      expect(await clientsOf(gateway)).toEqual([[transport, client.address]])
      await connected.endAsync(true)
      await eventually(async () => (await clientsOf(gateway)).length === 0)
    }
  })

  it('limits clients by their own addresses', async () => {
    const gateway = await start({ limits: { connectionsPerAddress: 1 } })
    const [one, two] = [
      await startProxy(gateway.urls.mqtt, proxyHeaderV1(client)),
      await startProxy(gateway.urls.mqtt, proxyHeaderV1({ ...client, address: '203.0.113.8' })),
    ]
    const open = async (port: number): Promise<void> => {
      const connected = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 })
      onTestFinished(() => void connected.end(true))
    }
    await open(one)
    await open(two)
    const third = connect(one, '127.0.0.1')
    third.on('error', () => {}).write('any byte')
    await once(third, 'close')
  })

  it.each([
    ['a connection without a header', Buffer.from('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n'), {}],
    ['an unfinished header, after the time limit', Buffer.from('PROXY '), { limits: { handshakeTimeout: '50ms' } }],
    ['any peer that is no trusted proxy', proxyHeaderV1(client), { trustedProxies: ['192.0.2.1'] }],
  ])('closes %s, and counts it', async (_title, bytes, config) => {
    const gateway = await start({ ...config, https: { port: 0 } })
    const socket = connect(Number(new URL(gateway.urls.http).port), '127.0.0.1')
    socket.on('error', () => {}).write(bytes)
    let received = ''
    socket.on('data', chunk => {
      received += chunk
    })
    await once(socket, 'close')
    expect(received).toBe('')
    const { text } = await ask(gateway.urls, 'https', { path: '/metrics' })
    expect(text).toContain('mqway_refusals_total{reason="proxy-header-invalid"} 1')
  })

  it('closes connections that wait for their header when the gateway stops', async () => {
    const gateway = await start()
    const socket = connect(Number(new URL(gateway.urls.http).port), '127.0.0.1')
    socket.on('error', () => {}).write('PROXY ')
    await once(socket, 'connect')
    const closed = once(socket, 'close')
    await gateway.close()
    await closed
  })
})
