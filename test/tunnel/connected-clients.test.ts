import { once } from 'node:events'
import type net from 'node:net'
import { generate, type IConnectPacket } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import { ConnectedClients } from '../../src/base/connected-clients.js'
import { GatewayError } from '../../src/base/errors.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import { startTunnelRig, type TunnelRig } from '../helpers/tunnel-rig.js'
import { eventually } from '../helpers/wait.js'

/*
 * What a tunnel tells the list of clients, and how it disconnects them, with a broker that sends what the test says.
 */

const connect = (more: Partial<IConnectPacket> = {}): Buffer =>
  generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 5,
    clean: true,
    keepalive: 60,
    clientId: 'c',
    ...more,
  })
const connack = Buffer.from([0x20, 3, 0, 0, 0])
const publish = generate({ cmd: 'publish', topic: 'a', payload: 'x'.repeat(300), qos: 0, dup: false, retain: false })

const rigs: TunnelRig[] = []
afterEach(async () => {
  await Promise.all(rigs.splice(0).map(rig => rig.close()))
})

async function open(first: Buffer, packet = connect(), options = {}) {
  const clients = new ConnectedClients(new TimeSlicer())
  const seen: string[] = []
  clients.watch({
    connected: ({ clientId }) => seen.push(`+${clientId}`),
    disconnected: ({ clientId }, reason) => seen.push(`-${clientId} ${reason}`),
  })
  let broker: net.Socket | undefined
  const rig = await startTunnelRig(
    socket => {
      broker = socket
      socket.on('end', () => socket.end())
      socket.once('data', () => socket.write(first))
    },
    { inspectConnect: true, ...options },
    false,
    { clients },
  )
  rigs.push(rig)
  const client: WebSocket = rig.connect()
  let received = Buffer.alloc(0)
  client.on('message', (bytes: Buffer) => {
    received = Buffer.concat([received, bytes])
  })
  const closed = once(client, 'close').then(([code, reason]) => [code, String(reason)])
  await once(client, 'open')
  client.send(packet)
  const end = async (hint = 'x'): Promise<void> => {
    const [found] = await clients.find(
      () => true,
      () => true,
    )
    found?.end(new GatewayError('disconnected-by-admin', { hint }))
  }
  return { clients, seen, client, closed, end, received: () => received, broker: () => broker }
}

const disconnect = (text: string): Buffer =>
  Buffer.concat([Buffer.from([0xe0, 5 + text.length, 0x98, 3 + text.length, 0x1f, 0, text.length]), Buffer.from(text)])

describe('the list of clients', () => {
  it('has a client from its CONNACK to its end', async () => {
    const { clients, seen, client, received } = await open(connack.subarray(0, 3))
    await eventually(() => received().length === 3)
    expect([clients.size, seen]).toEqual([0, []])
    const rig = rigs[0]
    rig?.brokerSockets[0]?.write(Buffer.concat([connack.subarray(3), publish]))
    await eventually(() => received().length === connack.length + publish.length)
    expect(seen).toEqual(['+c'])
    client.close()
    await eventually(() => seen.length === 2)
    expect(seen).toEqual(['+c', '-c client-closed'])
    expect(clients.size).toBe(0)
  })

  it.each([
    ['refuses it', Buffer.from([0x20, 3, 0, 0x87, 0])],
    ['is no MQTT broker', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ])('has none whose broker %s', async (_, first) => {
    const { seen, client, closed, received } = await open(first)
    await eventually(() => received().equals(first))
    client.close()
    await closed
    expect(seen).toEqual([])
  })

  it('has none of a tunnel that does not inspect CONNECT', async () => {
    const { seen, client, closed, received } = await open(connack, connect(), { inspectConnect: false })
    await eventually(() => received().equals(connack))
    client.close()
    await closed
    expect(seen).toEqual([])
  })
})

describe('a disconnected client of another broker', () => {
  const sentence = 'An administrator ended the connection: x'

  it('of MQTT 5 gets DISCONNECT with the reason, and the close frame', async () => {
    const { end, closed, received, seen } = await open(connack)
    await eventually(() => seen.length === 1)
    await end()
    expect(await closed).toEqual([1008, sentence])
    expect(received()).toEqual(Buffer.concat([connack, disconnect(sentence)]))
    expect(seen).toEqual(['+c', '-c disconnected-by-admin'])
  })

  it('gets no reason string where its packets must be smaller', async () => {
    const { end, closed, received, seen } = await open(connack, connect({ properties: { maximumPacketSize: 40 } }))
    await eventually(() => seen.length === 1)
    await end()
    await closed
    expect(received()).toEqual(Buffer.concat([connack, Buffer.from([0xe0, 1, 0x98])]))
  })

  it('before MQTT 5 gets nothing but the close frame', async () => {
    const { end, closed, received, seen } = await open(Buffer.from([0x20, 2, 0, 0]), connect({ protocolVersion: 4 }))
    await eventually(() => seen.length === 1)
    await end()
    expect(await closed).toEqual([1008, sentence])
    expect(received()).toEqual(Buffer.from([0x20, 2, 0, 0]))
  })

  it('gets DISCONNECT behind a packet that was on its way, and once', async () => {
    const { end, closed, received, seen, broker } = await open(connack)
    await eventually(() => seen.length === 1)
    broker()?.write(publish.subarray(0, 100))
    await eventually(() => received().length === connack.length + 100)
    await end()
    await end()
    broker()?.write(publish.subarray(100))
    await closed
    expect(received()).toEqual(Buffer.concat([connack, publish, disconnect(sentence)]))
  })

  it('gets none while its broker sends without a pause', async () => {
    const { end, client, closed, received, seen, broker } = await open(connack)
    await eventually(() => seen.length === 1)
    // Each message is followed by the next one, soon.
    client.on('message', () => setTimeout(() => broker()?.write(publish), 5))
    broker()?.write(publish)
    const started = performance.now()
    await end()
    expect(await closed).toEqual([1008, sentence])
    expect(performance.now() - started).toBeLessThan(4000)
    const packets = received().subarray(connack.length)
    expect(packets.length).toBeGreaterThan(publish.length)
    expect(packets.length % publish.length).toBe(0)
  })
})
