import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { maxSubscribeSize, PacketGuard } from '../../../src/broker/embedded/packet-guard.js'

/** One packet: its first byte, and so many bytes of body. */
function packet(first: number, length: number): Buffer {
  const header = [first]
  let rest = length
  do {
    header.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>= 7
  } while (rest > 0)
  return Buffer.concat([Buffer.from(header), Buffer.alloc(length, 0xff)])
}

/** `bytes`, cut at the given places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [0, ...places.map(place => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end))
}

const lengths = fc.oneof(fc.constantFrom(0, 1, 127, 128, 16_383, 16_384), fc.nat(3000))
const packets = fc.array(fc.record({ first: fc.nat(255), length: lengths }), { minLength: 1, maxLength: 20 })
const places = fc.array(fc.nat(100_000), { maxLength: 30 })

describe('the packet guard', () => {
  it('follows any packets, cut in any way, and counts them', () => {
    fc.assert(
      fc.property(packets, places, (list, at) => {
        const guard = new PacketGuard(1_000_000)
        const bytes = Buffer.concat(list.map(({ first, length }) => packet(first, length)))
        for (const chunk of cut(bytes, at)) expect(guard.scan(chunk)).toBeUndefined()
        expect(guard.packets).toBe(list.length)
        expect(guard.publishes).toBe(list.filter(({ first }) => first >> 4 === 3).length)
        expect(guard.bytes).toBe(bytes.length)
      }),
    )
  })

  it('finds the first packet beyond the limit, to the byte, wherever it is cut', () => {
    fc.assert(
      fc.property(packets, places, fc.integer({ min: 2, max: 20_000 }), (list, at, limit) => {
        const guard = new PacketGuard(limit)
        const whole = list.map(({ first, length }) => packet(first, length))
        const tooLarge = whole.findIndex(bytes => bytes.length > limit)
        const findings = cut(Buffer.concat(whole), at).map(chunk => guard.scan(chunk))
        expect(findings.at(-1)).toBe(tooLarge < 0 ? undefined : 'packet-too-large')
        expect(guard.packets).toBe(tooLarge < 0 ? whole.length : tooLarge)
      }),
    )
  })

  it.each([
    ['SUBSCRIBE', 0x82],
    ['UNSUBSCRIBE', 0xa2],
  ])('takes no %s of more than 128 KiB, as one could name 43,000 filters in it, but a PUBLISH', (_name, first) => {
    const guard = (): PacketGuard => new PacketGuard(16 * 1024 ** 2)
    expect(guard().scan(packet(first, maxSubscribeSize - 4))).toBeUndefined()
    expect(guard().scan(packet(first, maxSubscribeSize))).toBe('packet-too-large')
    expect(guard().scan(packet(0x30, maxSubscribeSize))).toBeUndefined()
  })

  it('knows that a packet is too large before its body comes', () => {
    const guard = new PacketGuard(16 * 1024 ** 2)
    expect(guard.scan(Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f]))).toBe('packet-too-large')
  })

  it('takes a remaining length of five bytes for no MQTT', () => {
    const guard = new PacketGuard(Number.POSITIVE_INFINITY)
    expect(guard.scan(Buffer.from([0x30, 0xff, 0xff, 0xff]))).toBeUndefined()
    expect(guard.scan(Buffer.from([0xff]))).toBe('not-mqtt')
    expect(guard.scan(packet(0xc0, 0))).toBe('not-mqtt')
  })
})
