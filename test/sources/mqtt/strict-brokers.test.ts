import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { generate, type Packet, parser } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { Connection } from '../../../src/mqtt/connection.js'
import { mqtt5 } from '../../../src/mqtt/protocol-profile.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, log, message, openWithout, refusedVersions, sessionOn } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

/** A session with a mosquitto that has its own rules, and what became of its state. */
async function start(rule?: string, dialect: keyof typeof refusedVersions = 'MQTT 5', publishTimeout = 10_000) {
  const rules = rule === undefined ? [] : [rule]
  const mosquitto = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', ...rules])
  cleanup.add(() => mosquitto.stop())
  const broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${mosquitto.port}`), log)
  cleanup.add(() => broker.close())
  const journal = new MemoryJournal({ bounds, log })
  cleanup.add(() => journal.close())
  const states: boolean[] = []
  const session = await sessionOn(broker, journal, {
    open: () => openWithout(broker, refusedVersions[dialect]),
    onStateChange: ready => states.push(ready),
    publishTimeout,
  })
  cleanup.add(() => session.close())
  return { session, states }
}

describe('a session with a broker that ends connections for what it does not take', () => {
  it.each([
    { what: 'a control character in a topic', bad: message('a\u0001b', 'x'), reason: 'topic-refused' },
    { what: 'a line feed in a topic', bad: message('a\nb', 'x', { qos: 0 }), reason: 'topic-refused' },
    { what: 'U+0085 in a topic', bad: message('a\u0085b', 'x'), reason: 'topic-refused' },
    { what: 'a non-character in a topic', bad: message('a\uffffb', 'x'), reason: 'topic-refused' },
    {
      what: 'a packet that is too large',
      rule: 'max_packet_size 2000',
      bad: message('a', 'x'.repeat(1990)),
      reason: 'body-too-large',
    },
    {
      what: 'a payload that is too large, of QoS 1,',
      rule: 'message_size_limit 2000',
      bad: message('a', 'x'.repeat(2001)),
      reason: 'body-too-large',
    },
    {
      what: 'a payload that is too large, of QoS 2,',
      rule: 'message_size_limit 2000',
      bad: message('a', 'x'.repeat(2001), { qos: 2 }),
      reason: 'body-too-large',
    },
    {
      what: 'a retained message where it keeps none',
      rule: 'retain_available false',
      bad: message('a', 'x', { retain: true }),
      reason: 'topic-refused',
    },
  ])('refuses $what at once, and goes on for everybody else', async ({ rule, bad, reason }) => {
    const { session, states } = await start(rule)
    await expect(session.publish(bad)).rejects.toMatchObject({ reason })
    expect(await session.publish(message('fine', 'x'))).toMatchObject({ topic: 'fine' })
    expect(states).toEqual([true])
  })

  it.each([
    ['max_packet_size 2000', 1980],
    ['message_size_limit 2000', 2000],
  ])('publishes what is as large as it takes: %s', async (rule, length) => {
    const { session, states } = await start(rule)
    expect(await session.publish(message('a', 'x'.repeat(length)))).toMatchObject({ topic: 'a' })
    expect(states).toEqual([true])
  })

  it.each(['MQTT 5', 'MQTT 3.1.1'] as const)(
    'waits for what it drops without a word, and nobody else does: %s',
    async dialect => {
      const { session, states } = await start('message_size_limit 2000', dialect, 1000)
      const qos = dialect === 'MQTT 5' ? 0 : 1
      const dropped = session.publish(message('a', 'x'.repeat(2001), { qos }))
      expect(await session.publish(message('fine', 'x'))).toMatchObject({ topic: 'fine' })
      await expect(dropped).rejects.toMatchObject({ reason: 'publish-timeout' })
      expect(states).toEqual([true])
    },
  )

  it('with MQTT 3.1.1 loses two connections for what is too large, and no third: it is known then', async () => {
    const { session, states } = await start('max_packet_size 2000', 'MQTT 3.1.1')
    const large = message('a', 'x'.repeat(3000))
    for (const reason of ['publish-timeout', 'body-too-large']) {
      expect(await session.publish(message('fine', 'x'))).toMatchObject({ topic: 'fine' })
      await expect(session.publish(large)).rejects.toMatchObject({ reason })
      await eventually(() => states.at(-1) === false)
      await eventually(() => session.connected)
    }
    for (const length of [3000, 5000]) {
      const refusal = { reason: 'body-too-large', text: expect.stringContaining('3001 bytes') }
      await expect(session.publish(message('a', 'x'.repeat(length)))).rejects.toMatchObject(refusal)
    }
    expect(await session.publish(message('a', 'x'.repeat(1900)))).toMatchObject({ topic: 'a' })
    expect(states).toEqual([true, false, true, false, true])
  })

  it('publishes as surely as it takes it', async () => {
    const { session, states } = await start('max_qos 1')
    expect(await session.publish(message('a', 'x', { qos: 2 }))).toMatchObject({ topic: 'a' })
    expect(states).toEqual([true])
  })
})

/** A stream to a broker that does what a test says with each packet of MQTT 5, and what it got. */
async function scriptedBroker(onPacket: (packet: Packet, socket: Socket) => void) {
  const commands: string[] = []
  const server = createServer(socket => {
    const incoming = parser({ protocolVersion: 5 })
    incoming.on('packet', packet => {
      commands.push(packet.cmd)
      onPacket(packet, socket)
    })
    socket.on('data', chunk => incoming.parse(chunk)).on('error', () => {})
  }).listen(0, '127.0.0.1')
  cleanup.add(() => server.close())
  await once(server, 'listening')
  const stream = connect((server.address() as AddressInfo).port, '127.0.0.1')
  cleanup.add(() => stream.destroy())
  return { stream, commands }
}

const connack = (properties = {}): Buffer =>
  generate({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties }, { protocolVersion: 5 })

it('a connection is alive in the time that the broker asks for, and not in its own', async () => {
  let onPing = (): void => {}
  const pinged = new Promise<void>(resolve => {
    onPing = resolve
  })
  const { stream, commands } = await scriptedBroker(({ cmd }, socket) => {
    if (cmd === 'pingreq') onPing()
    if (cmd === 'connect') socket.write(connack({ serverKeepAlive: 1 }))
  })
  const own = { clientId: 'c', clean: true, keepAlive: 3600, connectTimeout: 5000 }
  await Connection.connect({ ...own, stream, profile: mqtt5 })
  await pinged
  expect(commands).toEqual(['connect', 'pingreq'])
})

it.each([
  ['a topic that is longer than its packet', [0x30, 3, 0, 2, 0x61]],
  ['a PUBLISH without a topic', [0x30, 0]],
  ['a length of five bytes', [0x30, 0xff, 0xff, 0xff, 0xff, 0x01]],
  ['a type that there is not', [0x00, 0]],
])('a connection on which the broker sends %s ends, and says why', async (_, bytes) => {
  const { stream } = await scriptedBroker(({ cmd }, socket) => {
    if (cmd === 'connect') socket.write(Buffer.concat([connack(), Buffer.from(bytes)]))
  })
  const own = { clientId: 'c', clean: true, keepAlive: 0, connectTimeout: 5000 }
  const messages: unknown[] = []
  const onMessage = (packet: unknown): unknown => messages.push(packet)
  const reason = await Connection.connect({ ...own, stream, profile: mqtt5, onMessage }).then(
    connection => new Promise<Error>(resolve => connection.onClosed(resolve)),
    (error: Error) => error,
  )
  expect(reason.message).toContain('the broker sent an invalid MQTT packet')
  expect(messages).toEqual([])
})

it('a connection has ended when the broker has heard all that it said', async () => {
  const { stream, commands } = await scriptedBroker(({ cmd }, socket) => {
    if (cmd === 'connect') socket.write(connack())
    if (cmd === 'disconnect') socket.end()
  })
  const own = { clientId: 'c', clean: true, keepAlive: 0, connectTimeout: 5000 }
  const connection = await Connection.connect({ ...own, stream, profile: mqtt5 })
  connection.pause()
  connection.acknowledge(1)
  await connection.end()
  expect(commands).toEqual(['connect', 'puback', 'disconnect'])
})
