import { generate } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { MalformedPacket } from '../../src/mqtt/fields.js'
import { PacketSplitter, type RawPacket } from '../../src/mqtt/packet-splitter.js'
import { encodeProperties } from '../../src/mqtt/properties.js'
import { encodeMessage, readPublish } from '../../src/mqtt/publish-packet.js'

function split(chunks: readonly Buffer[]): RawPacket[] {
  const splitter = new PacketSplitter()
  return chunks.flatMap(chunk => [...splitter.push(chunk)])
}

describe('packets of a stream', () => {
  const packets = [
    Buffer.from([0xd0, 0]),
    Buffer.concat([Buffer.from([0x30, 0x80, 0x01]), Buffer.alloc(128, 1)]),
    Buffer.from([0xd0, 0]),
    Buffer.concat([Buffer.from([0x30, 0xff, 0xff, 0x03]), Buffer.alloc(65_535, 2)]),
    Buffer.from([0x40, 2, 0, 1]),
  ]

  it.each([1, 2, 3, 7, 129, 65_536, 1e6])('are found in chunks of %i bytes', size => {
    const all = Buffer.concat(packets)
    const chunks: Buffer[] = []
    for (let at = 0; at < all.length; at += size) chunks.push(all.subarray(at, at + size))
    const found = split(chunks)
    expect(
      found.map(({ bytes }) => bytes.equals(packets[found.findIndex(one => one.bytes === bytes)] as Buffer)),
    ).toEqual(packets.map(() => true))
    expect(found.map(({ headerLength }) => headerLength)).toEqual([2, 3, 2, 4, 2])
  })

  it('are malformed with a length of five bytes', () => {
    expect(() => split([Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff, 1])])).toThrow(MalformedPacket)
  })
})

describe('a PUBLISH of MQTT 5', () => {
  const now = Date.parse('2026-11-30')
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['Date'], now })
  })
  afterEach(() => {
    vi.useRealTimers()
  })
  const properties = encodeProperties({ contentType: 'a', userProperties: [['n', 'v']] })

  it.each([
    { qos: 0, retain: false },
    { qos: 1, retain: true },
    { qos: 2, retain: false, properties },
    { qos: 1, retain: false, properties, expires: now + 10_000 },
  ] as const)('is what mqtt-packet writes: %o', options => {
    const message = { topic: 'a/ü', payload: Buffer.from('hello'), ...options }
    const bytes = encodeMessage(message, 0x1234)
    const more = options.qos === 0 ? {} : { messageId: 0x1234 }
    const given = {
      ...('expires' in options && { messageExpiryInterval: 10 }),
      ...('properties' in options && { contentType: 'a', userProperties: { n: 'v' } }),
    }
    const packet = { cmd: 'publish' as const, dup: false, ...message, ...more, properties: given }
    const expected = generate(packet, { protocolVersion: 5 })
    expect(bytes.toString('hex')).toBe(expected.toString('hex'))
    const read = readPublish(bytes[0] ?? 0, bytes.subarray(2))
    expect(read).toMatchObject({ topic: 'a/ü', payload: message.payload, dup: false, ...more })
    expect(read.properties).toEqual('properties' in options ? properties : undefined)
    expect(read.expires).toBe('expires' in options ? options.expires : undefined)
  })

  it('expires after a second at least', () => {
    const message = { topic: 't', payload: Buffer.alloc(0), qos: 0, retain: false, expires: 1 } as const
    expect(encodeMessage(message).toString('hex')).toBe(`300900017405${'0200000001'}`)
  })

  it.each(['0000', '000174ff', '00017405', '000174020102', '0001740201'])('is malformed as %s', hex => {
    expect(() => readPublish(hex === '0000' ? 0x36 : 0x30, Buffer.from(hex, 'hex'))).toThrow(MalformedPacket)
  })
})
