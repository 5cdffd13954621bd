import fc from 'fast-check'
import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { encodePublish, PublishEncoder } from '../../../src/broker/embedded/publish-encoding.js'
import { TickScheduler } from '../../../src/broker/embedded/tick-scheduler.js'

const generated = (topic: string, payload: string | Buffer, protocolVersion: 3 | 4, retain = false): Buffer =>
  generate({ cmd: 'publish', topic, payload, qos: 0, retain, dup: false }, { protocolVersion })

const topics = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
  fc.constantFrom('t', '/', '温度/€/😀'),
)
const payloads = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)),
  fc.string({ unit: 'binary', maxLength: 300 }),
)

describe('a PUBLISH that is encoded once', () => {
  it('has the bytes of mqtt-packet, for any topic and payload, in MQTT 3.1 and 3.1.1', () => {
    fc.assert(
      fc.property(topics, payloads, fc.boolean(), (topic, payload, retain) => {
        const bytes = encodePublish(topic, payload, retain)
        expect(bytes).toEqual(generated(topic, payload, 3, retain))
        expect(bytes).toEqual(generated(topic, payload, 4, retain))
      }),
    )
  })

  it.each([127, 128, 16_383, 16_384, 2_097_151, 2_097_152])('has them at a remaining length of %i', remaining => {
    const topic = 'ö/rand'
    const payload = Buffer.alloc(remaining - 2 - Buffer.byteLength(topic), 'x')
    expect(encodePublish(topic, payload).equals(generated(topic, payload, 4))).toBe(true)
  })

  it('has them with the longest topic there is', () => {
    const topic = '€'.repeat(21_845)
    expect(encodePublish(topic, 'x').equals(generated(topic, 'x', 4))).toBe(true)
  })
})

describe('the encoder', () => {
  it('encodes one message once, and another one anew, also with the same payload or topic, or with RETAIN', () => {
    const encoder = new PublishEncoder(new TickScheduler())
    const [some, other] = [Buffer.from('some'), Buffer.from('other')]
    const encode = (topic: string, payload: Buffer, retain = false): Buffer =>
      encoder.encode({ topic, payload, retain })
    const first = encode('a', some)
    expect(encode('a', some)).toBe(first)
    expect(encode('a', some, true)).toEqual(encodePublish('a', some, true))
    expect(encode('b', some)).toEqual(encodePublish('b', some))
    expect(encode('b', other)).toEqual(encodePublish('b', other))
    expect(encode('a', some)).toEqual(first)
  })
})
