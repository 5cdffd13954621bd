import { connect as connectTcp } from 'node:net'
import { describe, expect, it } from 'vitest'
import { expectRefusal, testedBroker } from './broker.js'
import {
  authPacket,
  type ConnectOptions,
  connectPacket,
  disconnectPacket,
  packet,
  pingreq,
  properties,
  publishPacket,
  subscribePacket,
  text,
  two,
} from './packets.js'

const broker = testedBroker()

/** A session that stays for a minute. */
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

/** Sends bytes on a new connection; everything that comes back until its end, as hex. */
async function answerTo(...packets: Buffer[]): Promise<string> {
  const socket = connectTcp({ port: broker.port(), host: '127.0.0.1' })
  const chunks: Buffer[] = []
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.write(Buffer.concat(packets))
  await new Promise(resolve => socket.once('close', resolve))
  return Buffer.concat(chunks).toString('hex')
}

/** Expects that a CONNECT is refused with one of the codes. */
async function expectRefused(options: ConnectOptions, ...codes: number[]): Promise<void> {
  const client = await broker.open()
  await expectRefusal(client.send(connectPacket({ clientId: client.id, ...options })), ...codes)
}

/** Connects with a will and is cut off. */
async function leave(options: ConnectOptions) {
  const client = await broker.connect(options)
  client.destroy()
  return client
}

describe('CONNECT', () => {
  it.each([
    ['PUBLISH', publishPacket('t', '')],
    ['SUBSCRIBE', subscribePacket(1, ['t'])],
    ['PINGREQ', pingreq],
    ['DISCONNECT', disconnectPacket(0)],
    ['AUTH', authPacket(0x19, { authenticationMethod: 'x' })],
  ])(
    '[MQTT-3.1.0-1] [MQTT-3.14.0-1] a first packet that is %s ends the connection without a DISCONNECT',
    async (_, bytes) => {
      expect(await answerTo(bytes)).toBe('')
    },
  )

  it('[MQTT-3.1.0-2] [MQTT-4.13.2-1] a second one is a protocol error', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(connectPacket({ clientId: client.id })), 0x82)
  })

  it('[MQTT-3.1.2-1] another protocol name ends the connection', async () => {
    // Possible answers: none, CONNACK of MQTT 5, CONNACK of MQTT 3.1.1.
    expect(await answerTo(connectPacket({ clientId: 'x', protocolName: 'MQTX' }))).toBeOneOf([
      '',
      '2003008400',
      '20020001',
    ])
  })

  it.each([0, 2, 6, 255])('[MQTT-3.1.2-2] the protocol version %i ends the connection', async protocolVersion => {
    expect(await answerTo(connectPacket({ clientId: 'x', protocolVersion }))).toBeOneOf(['', '2003008400', '20020001'])
  })

  it.each([
    ['[MQTT-3.1.2-3] the reserved flag', {}, 0x01],
    ['[MQTT-3.1.2-9] a will flag without a will', {}, 0x04],
    ['[MQTT-3.1.2-9] a will without its flag', { will: { topic: 't' } }, 0x04],
    ['[MQTT-3.1.2-11] QoS of a will without a will', {}, 0x08],
    ['[MQTT-3.1.2-12] a will of QoS 3', { will: { topic: 't' } }, 0x18],
    ['[MQTT-3.1.2-13] a retained will without a will', {}, 0x20],
    ['[MQTT-3.1.2-16] a user name without its flag', { userName: 'u' }, 0x80],
    ['[MQTT-3.1.2-17] the flag of a user name without one', {}, 0x80],
    ['[MQTT-3.1.2-18] a password without its flag', { userName: 'u', password: 'p' }, 0x40],
    ['[MQTT-3.1.2-19] the flag of a password without one', { userName: 'u' }, 0x40],
  ])('%s is malformed', async (_, options, flipFlags) => {
    await expectRefused({ ...options, flipFlags }, 0x81)
  })

  it('[MQTT-3.1.3-3] without the field of a client identifier is malformed', async () => {
    const client = await broker.open()
    const wrong = packet(0x10, text('MQTT'), Buffer.from([5, 2]), two(0), properties())
    await expectRefusal(client.send(wrong), 0x81)
  })

  it.each([
    ['receive maximum 0', { receiveMaximum: 0 }],
    ['maximum packet size 0', { maximumPacketSize: 0 }],
    ['request for response information that is no flag', { requestResponseInformation: 2 }],
    ['request for problem information that is no flag', { requestProblemInformation: 2 }],
    ['authentication data without a method', { authenticationData: Buffer.from('x') }],
    ['session expiry interval twice', Buffer.from('11000000001100000000', 'hex')],
    ['receive maximum twice', Buffer.from('210001210001', 'hex')],
    ['topic alias maximum twice', Buffer.from('220001220001', 'hex')],
  ])('[MQTT-3.1.4-1] a %s is a protocol error', async (_, given) => {
    await expectRefused({ properties: given }, 0x82)
  })

  it.each([
    ['an unknown property', Buffer.from('7f00', 'hex')],
    ['a property of PUBLISH', Buffer.from('230001', 'hex')],
    ['a property of the server', Buffer.from('2401', 'hex')],
    ['a property that is cut short', Buffer.from('110000', 'hex')],
  ])('[MQTT-3.1.4-1] %s is malformed', async (_, given) => {
    await expectRefused({ properties: given }, 0x81, 0x82)
  })

  it('[MQTT-3.1.4-6] nothing is processed after one that is refused', async () => {
    const [subscriber, refused] = [await broker.connect(), await broker.open()]
    await subscriber.subscribe('after-refusal/#')
    const wrong = connectPacket({ clientId: refused.id, properties: { receiveMaximum: 0 } })
    await refused.send(wrong, publishPacket('after-refusal/no', '')).refused()
    await subscriber.publish('after-refusal/yes')
    expect(await subscriber.message()).toMatchObject({ topic: 'after-refusal/yes' })
  })

  it('[MQTT-3.1.3-1] [MQTT-3.1.2-17] [MQTT-3.1.2-19] the fields of its payload are read in their order', async () => {
    const subscriber = await broker.connect()
    await subscriber.subscribe('order/#')
    const client = await broker.open()
    const will = {
      topic: 'order/will',
      payload: 'gone',
      properties: { willDelayInterval: 0, contentType: 'text/plain' },
    }
    expect(await client.connect({ will, userName: 'user', password: 'password' })).toMatchObject({ code: 0 })
    client.destroy()
    const arrived = await subscriber.message()
    expect(arrived).toMatchObject({ topic: 'order/will', payload: 'gone', properties: { contentType: 'text/plain' } })
  })
})

describe('sessions', () => {
  it('[MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2] a clean start discards the session', async () => {
    const first = await broker.connect(lasting)
    await first.subscribe(['clean/#', 1])
    await first.disconnect()
    const second = await broker.open()
    expect(await second.connect({ ...lasting, clientId: first.id, cleanStart: true })).toMatchObject({
      sessionPresent: false,
    })
    await second.publish('clean/x')
    await second.subscribe('clean-marker')
    await second.publish('clean-marker', 'marker')
    expect(await second.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-3.2.2-3] [MQTT-4.5.0-1] a session is resumed with its subscriptions and messages', async () => {
    const [first, publisher] = [await broker.connect(lasting), await broker.connect()]
    await first.subscribe(['resumed/#', 2])
    await first.disconnect()
    await publisher.publish('resumed/1', '1', { qos: 1 })
    await publisher.publish('resumed/2', '2', { qos: 2 })
    const second = await broker.open()
    expect(await second.connect({ ...lasting, clientId: first.id })).toMatchObject({ code: 0, sessionPresent: true })
    expect(await second.message()).toMatchObject({ payload: '1', qos: 1 })
    expect(await second.message()).toMatchObject({ payload: '2', qos: 2 })
    await publisher.publish('resumed/3', '3', { qos: 1 })
    expect(await second.message()).toMatchObject({ payload: '3' })
  })

  it('[MQTT-3.1.2-6] [MQTT-3.2.2-3] a new session where there is none', async () => {
    const client = await broker.open()
    expect(await client.connect({ cleanStart: false })).toMatchObject({ code: 0, sessionPresent: false })
  })

  it('[MQTT-3.1.3-2] the client identifier is the session’s', async () => {
    const first = await broker.connect(lasting)
    await first.disconnect()
    const other = await broker.open()
    expect(await other.connect({ ...lasting, clientId: `${first.id}-other` })).toMatchObject({ sessionPresent: false })
  })

  it('[MQTT-4.1.0-2] without an expiry interval a session ends with its connection', async () => {
    const first = await broker.connect()
    await first.subscribe(['ends/#', 1])
    await first.disconnect()
    const second = await broker.open()
    expect(await second.connect({ clientId: first.id, cleanStart: false })).toMatchObject({ sessionPresent: false })
  })
})

describe.concurrent('sessions and time', () => {
  it('[MQTT-4.1.0-2] [MQTT-3.1.2-8] a session ends after its expiry interval, and its will is published then', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('expired/will')
    const given = { properties: { sessionExpiryInterval: 1 }, cleanStart: false }
    const will = { topic: 'expired/will', properties: { willDelayInterval: 100 } }
    const first = await leave({ ...given, will })
    const start = Date.now()
    await watcher.message()
    expect(Date.now() - start).toBeGreaterThan(900)
    const second = await broker.open()
    expect(await second.connect({ ...given, clientId: first.id })).toMatchObject({ sessionPresent: false })
  })

  it('[MQTT-3.1.2-8] a will is published after its delay', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('delayed/will')
    const will = { topic: 'delayed/will', properties: { willDelayInterval: 1 } }
    await leave({ ...lasting, will })
    const start = Date.now()
    await watcher.message()
    expect(Date.now() - start).toBeGreaterThan(900)
  })

  it('[MQTT-3.1.3-9] a will with a delay is not sent when the client is back before', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('back/#')
    const will = (topic: string) => ({ topic, properties: { willDelayInterval: 1 } })
    const first = await leave({ ...lasting, will: will('back/early') })
    await broker.connect({ ...lasting, clientId: first.id })
    await leave({ ...lasting, will: will('back/late') })
    expect(await watcher.message()).toMatchObject({ topic: 'back/late' })
  })

  it('[MQTT-3.1.2-22] [MQTT-3.2.2-22] a connection ends without a packet for 1.5 times the keep alive interval', async () => {
    const [watcher, client] = [await broker.connect(), await broker.open()]
    await watcher.subscribe('silent/will')
    const { properties } = await client.connect({ keepAlive: 1, will: { topic: 'silent/will', payload: 'silent' } })
    const interval = (properties.serverKeepAlive ?? 1) * 1000
    const start = Date.now()
    await expectRefusal(client, 0x8d)
    expect(Date.now() - start).toBeGreaterThan(interval * 1.4)
    expect(await watcher.message()).toMatchObject({ payload: 'silent' })
  })
})

describe('wills', () => {
  it('[MQTT-3.1.2-7] [MQTT-3.1.2-8] a will is published when the network fails', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe(['fails/will', 2])
    await leave({ will: { topic: 'fails/will', payload: 'gone', qos: 2 } })
    expect(await watcher.message()).toMatchObject({ payload: 'gone', qos: 2, retain: false })
  })

  it('[MQTT-3.1.2-8] DISCONNECT with 0x04 publishes it, too; so does one with an error', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('asked/will/#')
    for (const code of [0x04, 0x80, 0x81]) {
      const client = await broker.connect({ will: { topic: `asked/will/${code}` } })
      await client.disconnect(disconnectPacket(code))
      expect(await watcher.message()).toMatchObject({ topic: `asked/will/${code}` })
    }
  })

  it('[MQTT-3.1.2-10] [MQTT-3.14.4-3] a normal DISCONNECT discards it', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('discarded/#')
    for (const bytes of [[], [disconnectPacket(0)], [disconnectPacket(0, { userProperties: [['a', 'b']] })]]) {
      const client = await broker.connect({ will: { topic: 'discarded/will' } })
      await client.disconnect(...bytes)
    }
    await watcher.publish('discarded/marker', 'marker')
    expect(await watcher.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.1.2-10] a will is published once', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('once/#')
    const first = await leave({ ...lasting, will: { topic: 'once/will' } })
    await watcher.message()
    await leave({ ...lasting, clientId: first.id })
    await leave({ will: { topic: 'once/marker', payload: 'marker' } })
    expect(await watcher.payloadsBefore('marker')).toEqual([])
  })

  it.each([
    ['[MQTT-3.1.2-14] one without the flag is not retained', false, ['marker']],
    ['[MQTT-3.1.2-15] one with the flag is retained', true, ['kept', 'marker']],
  ])('%s', async (_, retain, expected) => {
    const watcher = await broker.connect()
    const topic = `retained-will/${retain}`
    await watcher.subscribe(topic)
    await leave({ will: { topic, payload: 'kept', retain } })
    expect(await watcher.message()).toMatchObject({ retain: false })
    const late = await broker.connect()
    await late.subscribe(topic)
    await late.publish(topic, 'marker')
    expect([...(await late.payloadsBefore('marker')), 'marker']).toEqual(expected)
  })

  it('[MQTT-3.1.3-10] a will has its properties, and user properties in their order', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('properties/will')
    const given = {
      payloadFormatIndicator: 1,
      contentType: 'text/plain',
      responseTopic: 'back',
      correlationData: Buffer.from([0, 1, 255]),
      userProperties: [
        ['b', '1'],
        ['a', '2'],
        ['b', '0'],
      ],
    } as const
    await leave({ will: { topic: 'properties/will', properties: { willDelayInterval: 0, ...given } } })
    expect((await watcher.message()).properties).toEqual(given)
  })

  it.each([
    ['a topic alias', Buffer.from('230001', 'hex')],
    ['a delay twice', Buffer.from('18000000001800000000', 'hex')],
    ['a response topic with a wildcard', { responseTopic: 'a/#' }],
    ['a payload that is not the text it says', { payloadFormatIndicator: 1 }, Buffer.from('c0', 'hex')],
  ])('[MQTT-3.1.4-1] a will with %s is refused', async (_, given, payload = Buffer.from('x')) => {
    await expectRefused({ will: { topic: 't', properties: given, payload } }, 0x81, 0x82, 0x90, 0x99)
  })
})

describe('client identifiers', () => {
  it('[MQTT-3.1.3-5] 23 letters and digits are allowed', async () => {
    for (const clientId of ['a', '0123456789abcdefghijABC', 'DEFGHIJKLMNOPQRSTUVWXYZ', 'klmnopqrstuvwxyz']) {
      const client = await broker.open()
      expect(await client.connect({ clientId })).toMatchObject({ code: 0 })
    }
  })

  it('[MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] an empty one is replaced by one that nobody has', async () => {
    const assigned: string[] = []
    for (let n = 0; n < 3; n++) {
      const client = await broker.open()
      const { code, properties } = await client.connect({ clientId: '', properties: { sessionExpiryInterval: 60 } })
      expect(code).toBe(0)
      assigned.push(properties.assignedClientIdentifier ?? '')
      await client.disconnect()
    }
    expect(new Set(assigned).size).toBe(3)
    expect(assigned).not.toContain('')
    const again = await broker.open()
    const [clientId] = assigned as [string]
    const { properties, sessionPresent } = await again.connect({ ...lasting, clientId })
    expect([sessionPresent, properties.assignedClientIdentifier]).toEqual([true, undefined])
  })

  it('[MQTT-3.1.4-3] a second connection takes over, and the first one is told', async () => {
    const watcher = await broker.connect()
    await watcher.subscribe('taken-over/will')
    const first = await broker.connect({ ...lasting, will: { topic: 'taken-over/will', payload: 'old' } })
    const second = await broker.open()
    expect(await second.connect({ ...lasting, clientId: first.id })).toMatchObject({ code: 0, sessionPresent: true })
    await expectRefusal(first, 0x8e)
    expect(await watcher.message()).toMatchObject({ payload: 'old' })
  })
})

describe('CONNACK', () => {
  it('[MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] is the first packet, and there is one', async () => {
    const first = await broker.connect(lasting)
    await first.subscribe(['first/#', 1])
    await first.disconnect()
    const publisher = await broker.connect()
    for (let n = 0; n < 5; n++) await publisher.publish('first/x', '', { qos: 1 })
    const second = await broker.open()
    second.send(connectPacket({ clientId: first.id, ...lasting }), pingreq)
    expect(await second.next()).toMatchObject({ type: 'connack', code: 0, sessionPresent: true })
    await second.take('pingresp')
  })

  it('[MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] refuses with no session, a code, and the end', async () => {
    const first = await broker.connect(lasting)
    await first.disconnect()
    const second = await broker.open()
    second.send(connectPacket({ clientId: first.id, cleanStart: false, properties: { receiveMaximum: 0 } }))
    expect(await second.next()).toMatchObject({ type: 'connack', sessionPresent: false, code: 0x82 })
    expect(await second.next()).toBeUndefined()
  })

  it('[MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13] all QoS and retained messages are there, and nothing says otherwise', async () => {
    const client = await broker.open()
    const will = { topic: 'capabilities', qos: 2, retain: true }
    const { code, properties } = await client.connect({ will })
    expect([code, properties.maximumQoS]).toEqual([0, undefined])
    const { retainAvailable, wildcardSubscriptionAvailable } = properties
    const { subscriptionIdentifierAvailable, sharedSubscriptionAvailable } = properties
    for (const available of [
      retainAvailable,
      wildcardSubscriptionAvailable,
      subscriptionIdentifierAvailable,
      sharedSubscriptionAvailable,
    ])
      expect(available).toBeOneOf([undefined, 1])
    const filters = [0, 1, 2].map(qos => [`capabilities/${qos}`, qos] as const)
    expect(await client.subscribe(filters)).toEqual([0, 1, 2])
    await client.disconnect()
  })

  it('[MQTT-3.2.2-15] a packet beyond the maximum that it says ends the connection', async () => {
    const client = await broker.open()
    const { properties } = await client.connect()
    const maximum = properties.maximumPacketSize ?? 0
    // Without a maximum there is none; then the largest packet is not sent here.
    if (maximum === 0) return
    const header = Buffer.concat([Buffer.from([0x30]), Buffer.from([0xff, 0xff, 0xff, 0x7f])])
    await expectRefusal(client.send(header, text('t')), 0x95)
  })

  it('[MQTT-3.1.2-28] has no response information that was not requested', async () => {
    for (const given of [{}, { requestResponseInformation: 0 }]) {
      const client = await broker.open()
      expect((await client.connect({ properties: given })).properties.responseInformation).toBeUndefined()
    }
  })

  it('[MQTT-3.2.2-19] [MQTT-3.2.2-20] is not larger than the client takes', async () => {
    const client = await broker.open()
    const properties = Buffer.concat([Buffer.from('2700000008', 'hex'), Buffer.from('210000', 'hex')])
    const answer = await answerTo(connectPacket({ clientId: client.id, properties }))
    expect(answer).toBeOneOf(['', '2003008200'])
  })
})
