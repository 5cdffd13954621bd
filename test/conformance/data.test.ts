import { describe, expect, it } from 'vitest'
import { expectRefusal, testedBroker } from './broker.js'
import {
  acknowledgement,
  connectPacket,
  disconnectPacket,
  four,
  packet,
  pingreq,
  publishPacket,
  subscribePacket,
  text,
  two,
  unsubscribePacket,
} from './packets.js'

const broker = testedBroker()

/** Bytes that are no text of UTF-8: a surrogate, one cut short, one that is longer than needed. */
const notUtf8 = { surrogate: 'eda080', 'cut short': '61c3', 'too long': 'c0af' }
const withNull = { 'U+0000': '610062' }

const connects: Readonly<Record<string, (bad: Buffer) => Buffer>> = {
  'client identifier [MQTT-3.1.3-4]': bad => connectPacket({ clientId: bad }),
  'will topic [MQTT-3.1.3-11]': bad => connectPacket({ clientId: 'x', will: { topic: bad } }),
  'user name [MQTT-3.1.3-12]': bad => connectPacket({ clientId: 'x', userName: bad }),
  'user property’s name [MQTT-1.5.7-1]': bad =>
    connectPacket({ clientId: 'x', properties: pair(bad, Buffer.from('v')) }),
  'user property’s value [MQTT-1.5.7-1]': bad =>
    connectPacket({ clientId: 'x', properties: pair(Buffer.from('n'), bad) }),
  'will’s content type': bad =>
    connectPacket({ clientId: 'x', will: { topic: 't', properties: Buffer.concat([Buffer.from([3]), text(bad)]) } }),
}
const later: Readonly<Record<string, (bad: Buffer) => Buffer>> = {
  'topic [MQTT-3.3.2-1]': bad => publishPacket(bad, ''),
  'response topic [MQTT-3.3.2-13]': bad => publishPacket('t', '', { properties: one(0x08, bad) }),
  'content type [MQTT-3.3.2-19]': bad => publishPacket('t', '', { properties: one(0x03, bad) }),
  'user property of PUBLISH [MQTT-1.5.7-1]': bad => publishPacket('t', '', { properties: pair(Buffer.from('n'), bad) }),
  'filter of SUBSCRIBE [MQTT-3.8.3-1]': bad => subscribePacket(1, [[bad, 0]]),
  'filter of UNSUBSCRIBE [MQTT-3.10.3-1]': bad => unsubscribePacket(1, [bad]),
  'reason string of PUBACK': bad => acknowledgement('puback', 1, 0, one(0x1f, bad)),
  'reason string of DISCONNECT': bad => disconnectPacket(0, one(0x1f, bad)),
}

function one(identifier: number, value: Buffer): Buffer {
  return Buffer.concat([Buffer.from([identifier]), text(value)])
}

function pair(name: Buffer, value: Buffer): Buffer {
  return Buffer.concat([Buffer.from([0x26]), text(name), text(value)])
}

describe.each([
  ['[MQTT-1.5.4-1]', notUtf8],
  ['[MQTT-1.5.4-2]', withNull],
])('%s a text that is not allowed ends the connection:', (_, texts) => {
  const cases = Object.entries(texts).map(([name, hex]) => [name, Buffer.from(hex, 'hex')] as const)

  it.each(Object.entries(connects))('%s', async (_, connect) => {
    for (const [, bytes] of cases) {
      const client = await broker.open()
      await expectRefusal(client.send(connect(bytes)), 0x81)
    }
  })

  it.each(Object.entries(later))('%s', async (_, make) => {
    for (const [, bytes] of cases) {
      const client = await broker.connect()
      await expectRefusal(client.send(make(bytes)), 0x81, 0x90)
    }
  })
})

it('[MQTT-1.5.4-3] a byte order mark is a character like others', async () => {
  const client = await broker.connect()
  await client.subscribe(['\ufeffmark', 'mark'])
  await client.publish('\ufeffmark', '1', { properties: { userProperties: [['\ufeffname', '\ufeffvalue']] } })
  expect(await client.message()).toMatchObject({
    topic: '\ufeffmark',
    properties: { userProperties: [['\ufeffname', '\ufeffvalue']] },
  })
})

it.each([
  ['remaining length', Buffer.from('30ffffffff7f', 'hex')],
  ['property length', packet(0x30, text('t'), Buffer.from('8080808000', 'hex'))],
  ['property length of SUBSCRIBE', packet(0x82, two(1), Buffer.from('8080808000', 'hex'), text('t'), Buffer.from([0]))],
  ['property identifier', packet(0x30, text('t'), Buffer.from([6]), Buffer.from('818080800000', 'hex'))],
  ['subscription identifier', subscribePacket(1, ['t'], Buffer.from('0b8080808001', 'hex'))],
])('[MQTT-1.5.5-1] a %s of five bytes ends the connection', async (_, bytes) => {
  const client = await broker.connect()
  await expectRefusal(client.send(bytes), 0x81)
})

it.each([0, 1, 126, 127, 128, 16_000])(
  '[MQTT-1.5.5-1] the server uses no more bytes for a length than needed: %i',
  async length => {
    const client = await broker.connect()
    await client.subscribe('lengths')
    await client.publish('lengths', 'x'.repeat(length), { properties: { contentType: 'y'.repeat(length) } })
    const { payload, properties } = await client.message()
    expect([payload.length, properties.contentType?.length]).toEqual([length, length])
  },
)

it('[MQTT-1.5.7-1] a user property is a pair of texts', async () => {
  const client = await broker.connect()
  await client.subscribe('pairs')
  const userProperties = [
    ['', ''],
    ['ключ', '値'],
    ['a', '𝄞'],
  ] as const
  await client.publish('pairs', '', { properties: { userProperties } })
  expect((await client.message()).properties).toEqual({ userProperties })
})

describe('[MQTT-2.1.3-1] reserved flags that are set wrongly end the connection:', () => {
  it('CONNECT', async () => {
    const connect = connectPacket({ clientId: 'flags' })
    for (const flags of [1, 2, 4, 8]) {
      connect[0] = 0x10 | flags
      const client = await broker.open()
      await expectRefusal(client.send(connect), 0x81)
    }
  })

  it.each([
    ['PUBACK', acknowledgement('puback', 1), '41 42 44 48'],
    ['PUBREC', acknowledgement('pubrec', 1), '51 52 54 58'],
    ['PUBREL [MQTT-3.6.1-1]', acknowledgement('pubrel', 1), '60 61 63 66 6a'],
    ['PUBCOMP', acknowledgement('pubcomp', 1), '71 72 74 78'],
    ['SUBSCRIBE [MQTT-3.8.1-1]', subscribePacket(1, ['t']), '80 81 83 86 8a'],
    ['UNSUBSCRIBE [MQTT-3.10.1-1]', unsubscribePacket(1, ['t']), 'a0 a1 a3 a6 aa'],
    ['PINGREQ', pingreq, 'c1 c2 c4 c8'],
    ['DISCONNECT [MQTT-3.14.1-1]', disconnectPacket(0), 'e1 e2 e4 e8'],
    ['AUTH [MQTT-3.15.1-1]', packet(0xf0), 'f1 f2 f4 f8'],
  ])('%s', async (_, bytes, firsts) => {
    for (const first of firsts.split(' ')) {
      const client = await broker.connect()
      const wrong = Buffer.concat([Buffer.from(first, 'hex'), bytes.subarray(1)])
      await expectRefusal(client.send(wrong), 0x81)
    }
  })
})

it('[MQTT-2.2.1-2] a PUBLISH of QoS 0 has no packet identifier', async () => {
  const client = await broker.connect()
  await client.subscribe(['qos0', 2])
  // Bytes that could be read as an identifier and properties.
  client.send(publishPacket('qos0', Buffer.from([0, 1, 0])))
  expect(await client.message()).toMatchObject({ qos: 0, payload: '\x00\x01\x00' })
})

it.each([
  ['PUBLISH of QoS 1', publishPacket('t', '', { qos: 1, id: 0 })],
  ['PUBLISH of QoS 2', publishPacket('t', '', { qos: 2, id: 0 })],
  ['SUBSCRIBE', subscribePacket(0, ['t'])],
  ['UNSUBSCRIBE', unsubscribePacket(0, ['t'])],
])('[MQTT-2.2.1-3] the packet identifier 0 in %s ends the connection', async (_, bytes) => {
  const client = await broker.connect()
  await expectRefusal(client.send(bytes), 0x81, 0x82)
})

it('[MQTT-2.2.1-4] the server gives each message an identifier that is not in use', async () => {
  const [subscriber, publisher] = [await broker.connect(), await broker.connect()]
  await subscriber.subscribe([`ids/#`, 2])
  for (let n = 0; n < 18; n++) await publisher.publish(`ids/${n}`, '', { qos: n % 2 === 0 ? 1 : 2 })
  const first = []
  for (let n = 0; n < 18; n++) first.push(await subscriber.take('publish'))
  expect(new Set(first.map(({ id }) => id)).size).toBe(18)
  // Acknowledged in another order; then there are others.
  for (const { id, qos } of first.reverse()) {
    if (qos === 1) subscriber.acknowledge('puback', id)
    else subscriber.acknowledge('pubrec', id, 0x80)
  }
  for (let n = 0; n < 18; n++) await publisher.publish(`ids/${n}`, '', { qos: 1 })
  for (let n = 0; n < 18; n++) await subscriber.message()
})

it('[MQTT-2.2.1-5] acknowledgements have the identifier of their PUBLISH', async () => {
  const client = await broker.connect()
  for (const id of [1, 255, 256, 65_535]) {
    client.send(publishPacket('t', '', { qos: 1, id }), publishPacket('t', '', { qos: 2, id: id - 1 || 7 }))
    expect(await client.take('puback')).toMatchObject({ id })
    expect(await client.take('pubrec')).toMatchObject({ id: id - 1 || 7 })
    client.send(acknowledgement('pubrel', id - 1 || 7))
    expect(await client.take('pubcomp')).toMatchObject({ id: id - 1 || 7 })
  }
})

it('[MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.10.4-5] SUBACK and UNSUBACK have the identifier of their request', async () => {
  const client = await broker.connect()
  for (const id of [1, 255, 256, 65_535]) {
    client.send(subscribePacket(id, ['t']))
    expect(await client.take('suback')).toMatchObject({ id })
    client.send(unsubscribePacket(id, ['t']))
    expect(await client.take('unsuback')).toMatchObject({ id })
  }
})

it.each([
  ['SUBSCRIBE', packet(0x82, two(1))],
  ['UNSUBSCRIBE', packet(0xa2, two(1))],
  ['PUBLISH', packet(0x30, text('t'))],
])('[MQTT-2.2.2-1] a %s without a property length ends the connection', async (_, bytes) => {
  const client = await broker.connect()
  await expectRefusal(client.send(bytes), 0x81, 0x82)
})

it('[MQTT-2.2.2-1] packets of the server without properties say so', async () => {
  const client = await broker.connect()
  // Each of these packets would not be decoded without a property length.
  expect(await client.subscribe('none')).toEqual([0])
  await client.publish('none', 'x')
  expect(await client.message()).toMatchObject({ payload: 'x', properties: {} })
  expect(await client.unsubscribe('none')).toEqual([0])
})

it('a property section that is longer than its packet ends the connection', async () => {
  const client = await broker.connect()
  const wrong = packet(0x30, text('t'), Buffer.from([9, 0x02]), four(1))
  await expectRefusal(client.send(wrong), 0x81)
})
