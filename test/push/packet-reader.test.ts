import fc from 'fast-check'
import { generate, type Packet } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { PacketReader } from '../../src/push/session/packet-reader.js'

/** What `reader` makes of `bytes` that come in chunks of these sizes, one after the other and over again. */
function read(bytes: Buffer, sizes: readonly number[], protocolVersion = 4) {
  const packets: Packet[] = []
  const errors: Error[] = []
  const reader = new PacketReader({
    protocolVersion,
    onPacket: packet => packets.push(packet),
    onError: error => errors.push(error),
  })
  for (let at = 0, count = 0; at < bytes.length; count++) {
    const size = sizes[count % sizes.length] ?? 1
    reader.read(bytes.subarray(at, at + size))
    at += size
  }
  return { packets, errors }
}

/** What matters of a packet, in a form that can be compared. */
const essence = (packet: Packet): unknown =>
  packet.cmd === 'publish'
    ? [packet.topic, packet.payload.toString('hex'), packet.qos, packet.retain, packet.dup, packet.messageId]
    : [packet.cmd, packet.messageId]

const publication = fc
  .record({
    topic: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 100 }),
    payload: fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.constant(new Uint8Array(20_000))),
    qos: fc.constantFrom(0, 0, 0, 1, 2),
    retain: fc.boolean(),
    dup: fc.boolean(),
    messageId: fc.integer({ min: 1, max: 65_535 }),
  })
  .map(({ topic, payload, qos, messageId, retain, dup }): Packet => {
    const common = { cmd: 'publish' as const, topic, payload: Buffer.from(payload), retain }
    return qos === 0 ? { ...common, qos: 0, dup: false } : { ...common, qos: qos === 1 ? 1 : 2, dup, messageId }
  })
const packet = fc.oneof(
  { weight: 4, arbitrary: publication },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Packet>({ cmd: 'pingresp' }, { cmd: 'suback', messageId: 7, granted: [0] }),
  },
)
const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 1, max: 70_000 })), { minLength: 1 })

describe('a reader of packets', () => {
  it('takes a payload that comes in one chunk by reference', () => {
    const payload = Buffer.allocUnsafeSlow(1024 ** 2).fill('x')
    const bytes = generate({ cmd: 'publish', topic: 't', payload, qos: 0, dup: false, retain: true })
    const packets: Packet[] = []
    const onError = (error: Error): void => void expect(error).toBeUndefined()
    const reader = new PacketReader({ protocolVersion: 4, onPacket: packet => packets.push(packet), onError })
    reader.read(bytes.subarray(0, -payload.length))
    reader.read(payload)
    const [packet] = packets
    expect(packet?.cmd === 'publish' && Buffer.isBuffer(packet.payload) && packet.payload.buffer).toBe(payload.buffer)
  })

  it.each([4, 5])('reads what was written (MQTT version %i), in whatever chunks it comes', protocolVersion => {
    fc.assert(
      fc.property(fc.array(packet, { minLength: 1, maxLength: 20 }), sizes, (sent, chunks) => {
        const bytes = Buffer.concat(sent.map(one => generate(one, { protocolVersion })))
        const { packets, errors } = read(bytes, chunks, protocolVersion)
        expect(errors).toEqual([])
        expect(packets.map(essence)).toEqual(sent.map(essence))
      }),
    )
  })

  it.each([
    ['a topic that is longer than its packet', [0x30, 3, 0, 2, 0x61]],
    ['a PUBLISH without a topic', [0x30, 0]],
    ['a length of five bytes', [0x30, 0xff, 0xff, 0xff, 0xff, 0x01]],
    ['a type that there is not', [0x00, 0]],
  ])('says that %s is no MQTT', (_, bytes) => {
    const { packets, errors } = read(Buffer.from(bytes), [bytes.length])
    expect([packets.length, errors.length]).toEqual([0, 1])
  })
})
