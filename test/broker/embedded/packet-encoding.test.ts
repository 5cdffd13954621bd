import fc from 'fast-check'
import { generate, type Packet, parser } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { PublishEncoder } from '../../../src/broker/embedded/packet-encoding.js'
import { TickScheduler } from '../../../src/broker/embedded/tick-scheduler.js'
import { encodeProperties } from '../../../src/mqtt/properties.js'
import { encodePublish } from '../../../src/mqtt/publish-packet.js'

const generated = (topic: string, payload: string | Buffer, protocolVersion: 3 | 4, retain = false): Buffer =>
  generate({ cmd: 'publish', topic, payload, qos: 0, retain, dup: false }, { protocolVersion })

const topics = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
  fc.constantFrom('t', '/', '温度/€/😀'),
)
const payloads = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)),
)
const form = { isVersion5: false, qos: 0, retain: false, dup: false, id: 0 } as const
const encoded = (topic: string, payload: Buffer | string, retain = false): Buffer =>
  encodePublish({ topic, payload: Buffer.from(payload as string) }, { ...form, retain })

describe('a PUBLISH that is encoded once', () => {
  it('has the bytes of mqtt-packet, for any topic and payload, in MQTT 3.1 and 3.1.1', () => {
    fc.assert(
      fc.property(topics, payloads, fc.boolean(), (topic, payload, retain) => {
        const bytes = encoded(topic, payload, retain)
        expect(bytes).toEqual(generated(topic, payload, 3, retain))
        expect(bytes).toEqual(generated(topic, payload, 4, retain))
      }),
    )
  })

  it.each([127, 128, 16_383, 16_384, 2_097_151, 2_097_152])('has them at a remaining length of %i', remaining => {
    const topic = 'ö/rand'
    const payload = Buffer.alloc(remaining - 2 - Buffer.byteLength(topic), 'x')
    expect(encoded(topic, payload).equals(generated(topic, payload, 4))).toBe(true)
  })

  it('has them with the longest topic there is', () => {
    const topic = '€'.repeat(21_845)
    expect(encoded(topic, 'x').equals(generated(topic, 'x', 4))).toBe(true)
  })
})

/** A PUBLISH of MQTT 5, or 3.1.1, by mqtt-packet. */
const generatedOf = (content: { topic: string; payload: Buffer }, more: object, protocolVersion: 4 | 5): Buffer =>
  generate({ cmd: 'publish', ...content, qos: 0, retain: false, dup: false, ...more } as Packet, { protocolVersion })

describe('the encoder', () => {
  const content = { topic: 'a', payload: Buffer.from('some') }

  it('encodes one message once for all who get it in the same form', () => {
    const encoder = new PublishEncoder(new TickScheduler())
    const first = encoder.shared(content, false, false)
    expect(encoder.shared(content, false, false)).toBe(first)
    expect(first).toEqual(generatedOf(content, {}, 4))
    expect(encoder.shared(content, true, true)).toEqual(generatedOf(content, { retain: true }, 5))
    const other = { topic: 'b', payload: content.payload }
    expect(encoder.shared(other, false, false)).toEqual(generatedOf(other, {}, 4))
    expect(encoder.shared(content, false, false)).toEqual(first)
  })

  it('gives each client its packet identifier, in all versions', () => {
    const encoder = new PublishEncoder(new TickScheduler())
    for (const version of [4, 5] as const) {
      for (const id of [1, 258, 65_535]) {
        const parts = encoder.encode(content, { ...form, isVersion5: version === 5, qos: 1, dup: true, id })
        expect(Buffer.concat(parts)).toEqual(generatedOf(content, { qos: 1, dup: true, messageId: id }, version))
      }
    }
  })

  it('writes expiry, subscription identifiers and alias before the properties of the publisher', () => {
    const encoder = new PublishEncoder(new TickScheduler())
    const properties = encodeProperties({ contentType: 'text/plain' })
    const parts = encoder.encode(
      { ...content, properties },
      {
        ...form,
        ...{ isVersion5: true, qos: 1, id: 7, expiry: 9, subscriptionIdentifiers: [1, 200] },
        alias: { number: 2, isKnown: true },
      },
    )
    const received: Packet[] = []
    const reader = parser({ protocolVersion: 5 })
    reader.on('packet', packet => received.push(packet))
    reader.parse(Buffer.concat(parts))
    expect(received[0]).toMatchObject({
      topic: '',
      messageId: 7,
      payload: content.payload,
      properties: {
        messageExpiryInterval: 9,
        subscriptionIdentifier: [1, 200],
        topicAlias: 2,
        contentType: 'text/plain',
      },
    })
  })

  it('does not copy a large payload', () => {
    const payload = Buffer.alloc(100_000, 'x')
    const [head, ...rest] = new PublishEncoder(new TickScheduler()).encode(
      { topic: 't', payload },
      { ...form, qos: 2, id: 3 },
    )
    expect(rest[0]).toBe(payload)
    expect(Buffer.concat([head ?? payload, payload])).toEqual(
      generatedOf({ topic: 't', payload }, { qos: 2, messageId: 3 }, 4),
    )
  })
})
