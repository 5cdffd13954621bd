import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createWebSocketStream, WebSocket } from 'ws'
import { otherBroker, testedBroker } from './broker.js'
import { Client } from './client.js'
import {
  acknowledgement,
  authPacket,
  type ConnectOptions,
  connectPacket,
  disconnectPacket,
  noLocal,
  packet,
  properties,
  publishPacket,
  subscribePacket,
  text,
  two,
  unsubscribePacket,
} from './packets.js'

const malformed = [0x81]
const protocolError = [0x82]
const either = [0x81, 0x82]

const hex = (bytes: string): Buffer => Buffer.from(bytes.replaceAll(' ', ''), 'hex')
const publish = (given: string, payload = ''): Buffer => publishPacket('t', payload, { properties: hex(given) })
const subscribe = (given: string): Buffer => subscribePacket(1, ['t'], hex(given))
const unsubscribe = (given: string): Buffer => unsubscribePacket(1, ['t'], hex(given))
const puback = (given: string): Buffer => acknowledgement('puback', 1, 0, hex(given))
const disconnect = (given: string): Buffer => disconnectPacket(0, hex(given))

/** A property with one more that is the same. */
const twice = (property: string): string => property + property

type Case = readonly [name: string, bytes: Buffer, codes: readonly number[]]

const cases: Readonly<Record<string, readonly Case[]>> = {
  'malformed properties': [
    ['an unknown one', publish('7f 00'), malformed],
    ['the identifier 0', publish('00 00'), malformed],
    ['an identifier of five bytes', publish('81 80 80 80 00 00'), malformed],
    ['one that is cut short', publish('02 00 00'), malformed],
    ['a text that is longer than all', publish('03 ff ff 61'), malformed],
    ['a pair without its value', publish('26 00 01 61'), malformed],
    ['a length of five bytes', packet(0x30, text('t'), hex('80 80 80 80 00')), malformed],
    ['a length beyond the packet', packet(0x30, text('t'), hex('ff 7f')), malformed],
    ['no length', packet(0x30, text('t')), either],
    ['a flag that is 2', publish('01 02'), either],
    ['a text that is not UTF-8', publish('03 00 01 ff'), malformed],
    ['a text with U+0000', publish('03 00 01 00'), malformed],
    ['SUBSCRIBE: an identifier of five bytes', subscribe('0b 80 80 80 80 01'), malformed],
    ['SUBSCRIBE: an identifier of 0', subscribe('0b 00'), protocolError],
    ['a response topic with a wildcard', publish('08 00 01 23'), [0x82, 0x90]],
    ['an empty response topic', publish('08 00 00'), [0x81, 0x82, 0x90]],
  ],
  'properties that are there twice': [
    ['payload format', publish(twice('01 00')), protocolError],
    ['message expiry', publish(twice('02 00 00 00 01')), protocolError],
    ['content type', publish(twice('03 00 01 61')), protocolError],
    ['response topic', publish(twice('08 00 01 61')), protocolError],
    ['correlation data', publish(twice('09 00 01 61')), protocolError],
    ['topic alias', publish(twice('23 00 01')), protocolError],
    ['subscription identifier', subscribe(twice('0b 01')), protocolError],
    ['reason string of PUBACK', puback(twice('1f 00 01 61')), protocolError],
    ['session expiry of DISCONNECT', disconnect(twice('11 00 00 00 00')), protocolError],
  ],
  'properties of another packet': [
    ['PUBLISH: session expiry', publish('11 00 00 00 01'), either],
    ['PUBLISH: receive maximum', publish('21 00 01'), either],
    ['PUBLISH: will delay', publish('18 00 00 00 01'), either],
    ['PUBLISH: reason string', publish('1f 00 01 61'), either],
    ['PUBLISH: subscription identifier', publish('0b 01'), either],
    ['SUBSCRIBE: topic alias', subscribe('23 00 01'), either],
    ['SUBSCRIBE: content type', subscribe('03 00 01 61'), either],
    ['SUBSCRIBE: reason string', subscribe('1f 00 01 61'), either],
    ['UNSUBSCRIBE: subscription identifier', unsubscribe('0b 01'), either],
    ['PUBACK: message expiry', puback('02 00 00 00 01'), either],
    ['DISCONNECT: content type', disconnect('03 00 01 61'), either],
    ['DISCONNECT: receive maximum', disconnect('21 00 01'), either],
  ],
  'topic aliases': [
    ['0', publish('23 00 00'), [0x94]],
    ['above the maximum', publish('23 ff ff'), [0x94]],
    ['unknown', publishPacket('', '', { properties: hex('23 00 01') }), [0x82, 0x94]],
    ['neither an alias nor a topic', publishPacket('', ''), either],
  ],
  'packets at the wrong time': [
    ['AUTH to begin', authPacket(0x18, { authenticationMethod: 'PLAIN' }), [0x82, 0x8c]],
    ['AUTH to begin again', authPacket(0x19, { authenticationMethod: 'PLAIN' }), [0x82, 0x8c]],
    ['AUTH without anything', packet(0xf0), [0x81, 0x82, 0x8c]],
    ['a second CONNECT', connectPacket({ clientId: 'second' }), protocolError],
    ['a CONNACK', hex('20 03 00 00 00'), either],
    ['a SUBACK', hex('90 04 00 01 00 00'), either],
    ['a PINGRESP', hex('d0 00'), either],
    ['type 0', hex('00 00'), either],
  ],
  'reserved bits': [
    ['PUBLISH of QoS 3', publishPacket('t', '', { qos: 3 }), malformed],
    ['PUBREL', hex('60 02 00 01'), malformed],
    ['SUBSCRIBE', hex('80 07 00 01 00 00 01 74 00'), malformed],
    ['options: bit 6', subscribePacket(1, [['t', 0x40]]), either],
    ['options: bit 7', subscribePacket(1, [['t', 0x80]]), either],
    ['options: QoS 3', subscribePacket(1, [['t', 3]]), either],
    ['options: retain handling 3', subscribePacket(1, [['t', 0x30]]), either],
    ['options: no local and a shared filter', subscribePacket(1, [['$share/g/t', noLocal]]), protocolError],
  ],
  sizes: [
    ['a remaining length of five bytes', hex('30 ff ff ff ff 7f'), malformed],
    ['a packet beyond the maximum', hex('30 ff ff ff 7f 00 01 74'), [0x95]],
    ['a SUBSCRIBE beyond the maximum', hex('82 ff ff ff 7f 00 01'), [0x95]],
    ['properties beyond the maximum', packet(0x30, text('t'), hex('80 80 40'), Buffer.alloc(1_048_576)), [0x81, 0x95]],
    ['an identifier of 0', publishPacket('t', '', { qos: 1, id: 0 }), either],
    ['SUBSCRIBE without a filter', packet(0x82, two(1), properties()), either],
    ['SUBSCRIBE without options', packet(0x82, two(1), properties(), text('t')), malformed],
    ['a PINGREQ with content', hex('c0 01 00'), malformed],
    ['a PUBACK of one byte', hex('40 01 00'), malformed],
  ],
}

const connects: readonly (readonly [name: string, options: ConnectOptions, codes: readonly number[]])[] = [
  ['receive maximum 0', { properties: { receiveMaximum: 0 } }, protocolError],
  ['maximum packet size 0', { properties: { maximumPacketSize: 0 } }, protocolError],
  ['session expiry twice', { properties: hex(twice('11 00 00 00 01')) }, protocolError],
  ['topic alias maximum twice', { properties: hex(twice('22 00 01')) }, protocolError],
  ['a property of PUBLISH', { properties: hex('23 00 01') }, either],
  ['an unknown property', { properties: hex('7f 00') }, malformed],
  ['a property that is cut short', { properties: hex('11 00') }, malformed],
  ['a pair without its value', { properties: hex('26 00 01 61') }, malformed],
  ['a will with two delays', { will: { topic: 't', properties: hex(twice('18 00 00 00 01')) } }, protocolError],
  ['a will with a topic alias', { will: { topic: 't', properties: hex('23 00 01') } }, either],
  ['a will with a wildcard', { will: { topic: 'a/#' } }, [0x81, 0x82, 0x90]],
  ['a will without a topic', { will: { topic: '' } }, [0x81, 0x82, 0x90]],
  [
    'a will that is not the text it says',
    { will: { topic: 't', payload: hex('ff'), properties: hex('01 01') } },
    [0x99],
  ],
  ['a method of authentication', { properties: { authenticationMethod: 'PLAIN' } }, [0x8c]],
  ['authentication data without a method', { properties: hex('16 00 01 61') }, protocolError],
  ['reserved flags', { flipFlags: 1 }, malformed],
]

// Another broker may give other codes, or none.
describe.skipIf(otherBroker > 0).each(['TCP', 'WebSocket'])('hostile packets of MQTT 5 over %s', transport => {
  const broker = testedBroker()
  let bystanders: Client[] = []
  beforeEach(async () => {
    if (bystanders.length > 0) return
    bystanders = [await broker.connect(), await broker.connect({ cleanStart: false })]
    for (const each of bystanders) await each.subscribe(['bystander', 1])
  })

  /** Both have been connected since the beginning, and get every message once. */
  afterEach(async () => {
    const [first, second] = bystanders as [Client, Client]
    await first.publish('bystander', 'x', { qos: 1 })
    for (const each of [first, second]) {
      const received = await each.next()
      expect(received).toMatchObject({ type: 'publish', topic: 'bystander', payload: 'x', qos: 1 })
      if (received?.type === 'publish') each.acknowledge('puback', received.id)
    }
  })

  const open = async (): Promise<Client> => {
    if (transport === 'TCP') return broker.open()
    const socket = new WebSocket(`${broker.gateway().urls.http.replace('http', 'ws')}/mqtt`, 'mqtt')
    await once(socket, 'open')
    return new Client(createWebSocketStream(socket))
  }

  for (const [group, all] of Object.entries(cases)) {
    it.each(all)(`${group}: %s`, async (_, bytes, codes) => {
      const client = await open()
      await client.connect()
      expect(await client.send(bytes).refused()).toBeOneOf([...codes])
    })
  }

  it.each(connects)('CONNECT: %s', async (_, options, codes) => {
    const client = await open()
    client.send(connectPacket({ clientId: client.id, ...options }))
    expect(await client.next()).toMatchObject({ type: 'connack', code: expect.toBeOneOf([...codes]) })
    expect(await client.next()).toBeUndefined()
  })

  it('more messages of QoS 2 than the server receives', async () => {
    const client = await open()
    const { receiveMaximum = 65_535 } = (await client.connect()).properties
    expect(receiveMaximum).toBeLessThan(65_535)
    for (let id = 1; id <= receiveMaximum + 1; id++) client.send(publishPacket('many', '', { qos: 2, id }))
    expect(await client.refused()).toBe(0x93)
  })

  it.each([1, 2])('a payload that is not the text it says, at QoS %i', async qos => {
    const client = await open()
    await client.connect()
    client.send(publishPacket('t', hex('c3 28'), { qos, properties: { payloadFormatIndicator: 1 } }))
    const answer = await client.next()
    expect(answer).toMatchObject({ type: expect.toBeOneOf(['puback', 'pubrec', 'disconnect']), code: 0x99 })
  })

  it.each(['$share/g', '$share//t', '$share/g/', '$share/+/t', '$share/g#/t', '$share/'])(
    'the shared filter %s',
    async filter => {
      const client = await open()
      await client.connect()
      client.send(subscribePacket(1, [[filter, 0]]))
      const answer = await client.next()
      if (answer?.type === 'suback') expect(answer.codes).toEqual([0x8f])
      else expect(answer).toMatchObject({ type: 'disconnect', code: expect.toBeOneOf([0x81, 0x82, 0x8f]) })
    },
  )
})
