import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MalformedPacket, MqttFields } from '../../src/mqtt/fields.js'
import {
  decodeMessageProperties,
  encodeProperties,
  type Properties,
  type PropertySet,
  readMessageProperties,
  readProperties,
  variableByteInteger,
} from '../../src/mqtt/properties.js'

/** Properties as in a packet, with their length. */
const section = (...parts: (Buffer | number[] | string)[]): MqttFields => {
  const bytes = Buffer.concat(parts.map(part => Buffer.from(part as Buffer)))
  return new MqttFields(Buffer.concat([variableByteInteger(bytes.length), bytes]))
}
const read = (properties: Properties, place: PropertySet): Properties | undefined =>
  readProperties(section(encodeProperties(properties)), place)
const reasonOf = (fields: MqttFields, place: PropertySet): number | undefined => {
  try {
    readProperties(fields, place)
  } catch (error) {
    return error instanceof MalformedPacket ? error.reasonCode : undefined
  }
  return undefined
}

const text = fc.string({ unit: fc.constantFrom('a', 'é', '€', '😀', '_', ' '), maxLength: 20 })
const pair = fc.tuple(fc.oneof(text, fc.constantFrom('__proto__', 'constructor', '1', '0')), text)
const messageProperties = fc.record(
  {
    payloadFormatIndicator: fc.boolean(),
    contentType: text,
    responseTopic: fc.constantFrom('answers/1', 'a'),
    correlationData: fc.uint8Array({ maxLength: 50 }).map(bytes => Buffer.from(bytes)),
    userProperties: fc.array(pair, { minLength: 1, maxLength: 5 }),
  },
  { requiredKeys: [] },
)

describe('properties of MQTT 5', () => {
  it('are read as they were written, user properties with their order and repetitions', () => {
    fc.assert(
      fc.property(messageProperties, properties => {
        expect(decodeMessageProperties(encodeProperties(properties))).toEqual(properties)
      }),
    )
  })

  it('of a PUBLISH come apart into those for the broker and those for the receivers, whose bytes are unchanged', () => {
    fc.assert(
      fc.property(messageProperties, fc.nat(2 ** 32 - 1), (properties, messageExpiryInterval) => {
        const own = { ...properties, messageExpiryInterval, topicAlias: 3 }
        const found = readMessageProperties(section(encodeProperties(own)), 'publish')
        const { userProperties: _, ...read } = own
        expect(found?.own).toEqual(read)
        const encoded = encodeProperties(properties)
        expect(found?.encoded ?? Buffer.alloc(0)).toEqual(encoded)
      }),
    )
  })

  it('of CONNECT, SUBSCRIBE and DISCONNECT are read', () => {
    const connect = {
      sessionExpiryInterval: 4_294_967_295,
      receiveMaximum: 1,
      maximumPacketSize: 2,
      topicAliasMaximum: 0,
    }
    expect(read(connect, 'connect')).toEqual(connect)
    expect(read({ subscriptionIdentifiers: [268_435_455] }, 'subscribe')).toEqual({
      subscriptionIdentifiers: [268_435_455],
    })
    expect(read({ sessionExpiryInterval: 0, reasonString: 'bye' }, 'disconnect')).toEqual({
      sessionExpiryInterval: 0,
      reasonString: 'bye',
    })
    expect(read({}, 'connect')).toBeUndefined()
  })

  it.each<[string, PropertySet, Properties]>([
    ['a topic alias in CONNECT', 'connect', { topicAlias: 1 }],
    ['a subscription identifier of a client in PUBLISH [MQTT-3.3.4-6]', 'publish', { subscriptionIdentifiers: [1] }],
    ['a will delay in PUBLISH', 'publish', { willDelayInterval: 1 }],
    ['a content type in SUBSCRIBE', 'subscribe', { contentType: 'x' }],
    ['an assigned client identifier of a client', 'connect', { assignedClientIdentifier: 'x' }],
  ])('are malformed where a packet may not have them: %s', (_, place, properties) => {
    expect(reasonOf(section(encodeProperties(properties)), place)).toBe(0x81)
  })

  it.each<[string, PropertySet, MqttFields, number]>([
    ['an unknown identifier', 'connect', section([0x7f, 1]), 0x81],
    ['a value that is cut short', 'connect', section([0x11, 0, 0]), 0x81],
    ['a length beyond the packet', 'connect', new MqttFields(Buffer.from([9, 0x17, 1])), 0x81],
    ['a length of five bytes', 'connect', new MqttFields(Buffer.from([0x80, 0x80, 0x80, 0x80, 1])), 0x81],
    ['a text that is not UTF-8', 'publish', section([3, 0, 1, 0xff]), 0x81],
    ['a text with U+0000', 'publish', section([3, 0, 1, 0]), 0x81],
    ['one of them twice', 'publish', section([3, 0, 0, 3, 0, 0]), 0x82],
    ['a flag of 2', 'publish', section([1, 2]), 0x82],
    ['a receive maximum of 0', 'connect', section([0x21, 0, 0]), 0x82],
    ['a maximum packet size of 0', 'connect', section([0x27, 0, 0, 0, 0]), 0x82],
    ['a subscription identifier of 0', 'subscribe', section([0x0b, 0]), 0x82],
    ['a response topic with a wildcard', 'publish', section([8, 0, 1], '#'), 0x82],
    ['more than 64 KiB of them', 'publish', section(Buffer.alloc(64 * 1024 + 1)), 0x95],
    ['a user property without a value', 'connect', section([0x26, 0, 1], 'a'), 0x81],
    ['a user property with U+0000', 'subscribe', section([0x26, 0, 1, 0, 0, 0]), 0x81],
    ['a user property that is not UTF-8', 'publish', section([0x26, 0, 0, 0, 1, 0xff]), 0x81],
    ['an empty response topic', 'publish', section([8, 0, 0]), 0x82],
  ])('are refused with their reason code: %s', (_, place, fields, reason) => {
    expect(reasonOf(fields, place)).toBe(reason)
  })

  it('of any bytes are read or refused as malformed', () => {
    const places = fc.constantFrom<PropertySet>('connect', 'will', 'publish', 'subscribe', 'disconnect', 'auth')
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), places, (bytes, place) => {
        try {
          readProperties(new MqttFields(Buffer.from(bytes)), place)
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedPacket)
        }
      }),
    )
  })
})
