import fc from 'fast-check'
import { generate, type IConnectPacket, type Packet, parser } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { type ConnectFacts, readConnect } from '../../src/tunnel/connect-inspector.js'

const text = fc.string({ unit: 'binary', maxLength: 20 })
const word = fc.string({ minLength: 1, maxLength: 20 })
const uint16 = fc.nat(0xffff)
const uint32 = fc.nat(0xffff_ffff)

const properties = fc.record(
  {
    sessionExpiryInterval: uint32,
    // 0 is a protocol error.
    receiveMaximum: fc.integer({ min: 1, max: 0xffff }),
    maximumPacketSize: fc.integer({ min: 1, max: 0xffff_ffff }),
    topicAliasMaximum: uint16,
    requestResponseInformation: fc.boolean(),
    requestProblemInformation: fc.boolean(),
    userProperties: fc.dictionary(word, word, { minKeys: 1, maxKeys: 3 }),
    authenticationMethod: word,
    authenticationData: fc.uint8Array({ maxLength: 20 }).map(bytes => Buffer.from(bytes)),
  },
  { requiredKeys: [] },
)

const willProperties = fc.record(
  {
    willDelayInterval: uint32,
    payloadFormatIndicator: fc.boolean(),
    messageExpiryInterval: uint32,
    contentType: word,
    responseTopic: word,
    correlationData: fc.uint8Array({ maxLength: 20 }).map(bytes => Buffer.from(bytes)),
    userProperties: fc.dictionary(word, word, { minKeys: 1, maxKeys: 3 }),
  },
  { requiredKeys: [] },
)

const connects = fc
  .record({
    clientId: word,
    version: fc.constantFrom(3 as const, 4 as const, 5 as const),
    bridge: fc.boolean(),
    username: fc.option(word, { nil: undefined }),
    will: fc.option(
      fc.record({ topic: word, payload: text, qos: fc.constantFrom(0 as const, 1 as const, 2 as const) }),
      {
        nil: undefined,
      },
    ),
    properties,
    willProperties,
  })
  .map(({ version, bridge, username, will, properties, willProperties, ...rest }) => {
    const packet: IConnectPacket = {
      ...rest,
      cmd: 'connect',
      protocolVersion: version,
      protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
      // MQTT 5 has no bridges of this kind.
      ...(bridge && version !== 5 ? { bridgeMode: true } : {}),
      clean: true,
      keepalive: 60,
      ...(username === undefined ? {} : { username, password: Buffer.from('secret') }),
      ...(will === undefined
        ? {}
        : {
            will: {
              ...will,
              payload: Buffer.from(will.payload),
              retain: true,
              ...(version === 5 ? { properties: willProperties } : {}),
            },
          }),
      ...(version === 5 ? { properties } : {}),
    }
    return packet
  })

/** A whole packet without its fixed header. */
function bodyOf(packet: Buffer): Buffer {
  let end = 1
  while (((packet[end] ?? 0) & 0x80) !== 0) end++
  return packet.subarray(end + 1)
}

/** What `mqtt-packet` makes of it. */
function readElsewhere(packet: Buffer): ConnectFacts | 'malformed' {
  const found: Packet[] = []
  const failures: Error[] = []
  const packets = parser()
  packets.on('packet', each => found.push(each)).on('error', error => failures.push(error))
  packets.parse(packet)
  const [connect] = found
  if (failures.length > 0 || connect?.cmd !== 'connect') return 'malformed'
  const { clientId, protocolVersion = 4, username, properties: { maximumPacketSize } = {} } = connect
  return { clientId, protocolVersion, username, ...(maximumPacketSize !== undefined && { maximumPacketSize }) }
}

const v5 = (...propertyBytes: number[]): Buffer =>
  Buffer.from([0, 4, 0x4d, 0x51, 0x54, 0x54, 5, 2, 0, 60, propertyBytes.length, ...propertyBytes, 0, 1, 0x63])

describe('reading a CONNECT', () => {
  it('finds what mqtt-packet finds, with any will, credentials and properties', () => {
    fc.assert(
      fc.property(connects, packet => {
        const bytes = generate(packet)
        expect(readConnect(bodyOf(bytes))).toEqual(readElsewhere(bytes))
      }),
      { numRuns: 1000 },
    )
  })

  it('tells what it can of one that lacks bytes, and nothing that is not so', () => {
    fc.assert(
      fc.property(connects, fc.nat(), (packet, cut) => {
        const bytes = generate(packet)
        const body = bodyOf(bytes)
        const whole = readElsewhere(bytes)
        const facts = readConnect(body.subarray(0, cut % body.length))
        for (const [name, fact] of Object.entries(facts))
          if (fact !== undefined) expect({ [name]: fact }).toEqual({ [name]: Object(whole)[name] })
      }),
    )
  })

  it('finds what mqtt-packet finds, when one byte of it is another', () => {
    fc.assert(
      fc.property(connects, fc.nat(), fc.nat(255), (packet, at, value) => {
        const bytes = Buffer.from(generate(packet))
        const body = bodyOf(bytes)
        body[at % body.length] = value
        const elsewhere = readElsewhere(bytes)
        // It goes into each property, and takes a text that is longer than all of them.
        const isPlain = elsewhere !== 'malformed' && elsewhere.protocolVersion !== 5
        if (isPlain) expect(readConnect(body)).toEqual(elsewhere)
      }),
      { numRuns: 2000 },
    )
  })

  it('takes every property that MQTT 5 has', () => {
    const values: Record<number, number[]> = {
      1: [0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a],
      2: [0x13, 0x21, 0x22, 0x23],
      4: [0x02, 0x11, 0x18, 0x27],
    }
    const fixed = Object.entries(values).flatMap(([size, ids]) => ids.map(id => [id, ...Array(Number(size)).fill(0)]))
    const texts = [0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f].map(id => [id, 0, 1, 0x61])
    const others = [
      [0x0b, 0x80, 0x01],
      [0x26, 0, 1, 0x61, 0, 1, 0x62],
    ]
    for (const property of [...fixed, ...texts, ...others])
      expect(readConnect(v5(...property))).toEqual({ clientId: 'c', protocolVersion: 5, username: undefined })
  })
})
