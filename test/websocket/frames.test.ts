import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FrameDecoder, isCloseCode } from '../../src/websocket/frame-decoder.js'
import { encodeClose, encodeFrame, encodeText } from '../../src/websocket/frame-writer.js'
import { decodeByOracle, encodeByOracle, type TestFrame } from '../helpers/ws-oracle.js'

const sizes = [0, 1, 2, 3, 125, 126, 127, 255, 256, 257, 65_535, 65_536, 1024 ** 2]
const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 }

/** Decodes `bytes`, cut at `cuts` (any numbers; taken modulo what is left). */
function decode(bytes: Buffer, cuts: readonly number[]) {
  const pings: Buffer[] = []
  const pongs: Buffer[] = []
  const decoder = new FrameDecoder({
    onPing: payload => pings.push(Buffer.from(payload)),
    onPong: payload => pongs.push(Buffer.from(payload)),
  })
  const parts: Buffer[] = []
  let rest = bytes
  for (const cut of cuts) {
    const at = rest.length === 0 ? 0 : cut % (rest.length + 1)
    parts.push(Buffer.from(decoder.decode(Buffer.from(rest.subarray(0, at)))))
    rest = rest.subarray(at)
  }
  parts.push(Buffer.from(decoder.decode(Buffer.from(rest))))
  return { payload: Buffer.concat(parts), pings, pongs, end: decoder.end, frames: decoder.frames }
}

const mask = fc.uint8Array({ minLength: 4, maxLength: 4 }).map(bytes => Buffer.from(bytes))
const payload = fc
  .tuple(
    fc.oneof(
      { weight: 20, arbitrary: fc.integer({ min: 0, max: 300 }) },
      { weight: 3, arbitrary: fc.constantFrom(...sizes) },
    ),
    fc.nat(255),
  )
  // A pattern that repeats at no multiple of the mask, so that a slip by any number of bytes shows.
  .map(([size, seed]) => Buffer.alloc(size, Buffer.from(Array.from({ length: 251 }, (_, i) => (i * 31 + seed) & 255))))
const controlFrame = fc.record({
  fin: fc.constant(true),
  opcode: fc.constantFrom(opcodes.ping, opcodes.pong),
  payload: fc.uint8Array({ maxLength: 125 }).map(bytes => Buffer.from(bytes)),
  mask,
})

/** One message, whole or in fragments, with control frames between them. */
const message = fc
  .array(fc.record({ payload, mask, controls: fc.array(controlFrame, { maxLength: 2 }) }), {
    minLength: 1,
    maxLength: 4,
  })
  .map(fragments =>
    fragments.flatMap(({ controls, ...fragment }, i): TestFrame[] => [
      { ...fragment, opcode: i === 0 ? opcodes.binary : opcodes.continuation, fin: i === fragments.length - 1 },
      ...controls,
    ]),
  )
const frames = fc.array(message, { maxLength: 6 }).map(messages => messages.flat())
const cuts = fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.nat(100_000)), { maxLength: 12 })

describe('the frame decoder', () => {
  it('yields the bytes that ws yields, however frames are fragmented, masked and cut into reads', async () => {
    await fc.assert(
      fc.asyncProperty(frames, cuts, async (sent, cutAt) => {
        const bytes = Buffer.concat(sent.map(encodeByOracle))
        const expected = await decodeByOracle(bytes, 'client')
        const actual = decode(bytes, cutAt)
        expect(actual.end).toBeUndefined()
        expect(actual.frames).toBe(sent.length)
        expect(actual.payload.equals(expected.payload)).toBe(true)
        expect(actual.pings).toEqual(expected.pings)
        expect(actual.pongs).toEqual(expected.pongs)
      }),
      { numRuns: 300 },
    )
  })

  it('yields the same bytes when every read is a single byte', () => {
    fc.assert(
      fc.property(
        fc.array(controlFrame, { maxLength: 3 }),
        fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 4 }),
        mask,
        (controls, payloads, key) => {
          const data = payloads.map(bytes => ({
            fin: true,
            opcode: opcodes.binary,
            payload: Buffer.from(bytes),
            mask: key,
          }))
          const bytes = Buffer.concat([...data, ...controls].map(encodeByOracle))
          expect(decode(bytes, Array(bytes.length).fill(1)).payload.equals(Buffer.concat(payloads))).toBe(true)
        },
      ),
      { numRuns: 100 },
    )
  })

  it.each(sizes)('takes a frame of %i bytes', size => {
    const content = randomBytes(size)
    const bytes = encodeByOracle({ fin: true, opcode: opcodes.binary, payload: content, mask: randomBytes(4) })
    expect(decode(bytes, [1, 7, 1000]).payload.equals(content)).toBe(true)
  })

  it('agrees with ws on every violation, and yields no byte from after it', async () => {
    const header = fc.record({
      first: fc.integer({ min: 0, max: 255 }),
      masked: fc.boolean(),
      length: fc.integer({ min: 0, max: 127 }),
      payload: fc.uint8Array({ minLength: 8, maxLength: 200 }),
    })
    await fc.assert(
      fc.asyncProperty(frames, header, cuts, async (before, bad, cutAt) => {
        const good = Buffer.concat(before.map(encodeByOracle))
        const second = (bad.masked ? 0x80 : 0) | bad.length
        const bytes = Buffer.concat([good, Buffer.from([bad.first, second]), bad.payload, Buffer.alloc(200)])
        const expected = await decodeByOracle(bytes, 'client')
        const actual = decode(bytes, cutAt)
        // Text is what MQTT forbids and WebSocket allows; where the oracle would wait for its end, this side does not.
        if (actual.end?.kind === 'violation' && actual.end.reason === 'text-frame') {
          expect(
            actual.payload.equals(Buffer.concat(before.filter(frame => frame.opcode < 8).map(frame => frame.payload))),
          ).toBe(true)
          return
        }
        if (expected.violation !== undefined && expected.closeCode === undefined) {
          const code = { 'protocol-error': 1002, 'invalid-utf8': 1007, 'text-frame': 1003 } as Record<string, number>
          // 1009 is the oracle's answer to lengths that it cannot count.
          const wanted = expected.violation === 1009 ? 1002 : expected.violation
          if (actual.end?.kind === 'violation') expect(code[actual.end.reason]).toBe(wanted)
          else expect.unreachable(`ws found a violation (${expected.violation}), the decoder did not`)
        }
        // The oracle yields whole messages only; what is decoded begins with those.
        expect(actual.payload.subarray(0, expected.payload.length).equals(expected.payload)).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })

  it.each([
    ['a reserved bit', [0xc2, 0x80, 0, 0, 0, 0], 'protocol-error'],
    ['a frame without mask', [0x82, 0x01, 0x41], 'protocol-error'],
    ['opcode 3', [0x83, 0x80, 0, 0, 0, 0], 'protocol-error'],
    ['opcode 11', [0x8b, 0x80, 0, 0, 0, 0], 'protocol-error'],
    ['a continuation without a beginning', [0x80, 0x80, 0, 0, 0, 0], 'protocol-error'],
    ['a new message inside a fragmented one', [0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0], 'protocol-error'],
    ['a fragmented ping', [0x09, 0x80, 0, 0, 0, 0], 'protocol-error'],
    ['a ping of 126 bytes', [0x89, 0xfe, 0, 126, 0, 0, 0, 0], 'protocol-error'],
    ['a length with its highest bit set', [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 'protocol-error'],
    ['a close frame with one byte', [0x88, 0x81, 0, 0, 0, 0, 0x03], 'protocol-error'],
    ['close code 1005', [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], 'protocol-error'],
    ['a close reason that is not UTF-8', [0x88, 0x83, 0, 0, 0, 0, 0x03, 0xe8, 0xff], 'invalid-utf8'],
    ['a text frame', [0x81, 0x81, 0, 0, 0, 0, 0x41], 'text-frame'],
  ])('refuses %s, wherever it is cut', (_name, header, reason) => {
    const good = encodeByOracle({
      fin: true,
      opcode: opcodes.binary,
      payload: Buffer.from('good'),
      mask: randomBytes(4),
    })
    const bytes = Buffer.concat([
      good,
      Buffer.from(header),
      encodeByOracle({ fin: true, opcode: opcodes.binary, payload: Buffer.from('late'), mask: randomBytes(4) }),
    ])
    for (let at = 0; at <= bytes.length; at++) {
      const actual = decode(bytes, [at])
      expect(actual.end).toMatchObject({ kind: 'violation', reason })
      expect(actual.payload.toString()).toBe('good')
    }
  })

  it('reports the close code and reason, and ignores what follows', () => {
    const close = {
      fin: true,
      opcode: opcodes.close,
      payload: Buffer.from('\x03\xe8bye', 'latin1'),
      mask: randomBytes(4),
    }
    const late = { fin: true, opcode: opcodes.binary, payload: Buffer.from('late'), mask: randomBytes(4) }
    const actual = decode(Buffer.concat([close, late].map(encodeByOracle)), [3, 2])
    expect(actual.end).toEqual({ kind: 'close', code: 1000, reason: 'bye' })
    expect(actual.payload.length).toBe(0)
  })

  it('takes a close frame without a code', () => {
    const close = { fin: true, opcode: opcodes.close, payload: Buffer.alloc(0), mask: randomBytes(4) }
    expect(decode(encodeByOracle(close), []).end).toEqual({ kind: 'close', code: undefined, reason: '' })
  })

  it('agrees with ws on which close codes may be sent', async () => {
    for (let code = 0; code < 5100; code++) {
      const body = Buffer.from([code >>> 8, code & 255])
      const bytes = encodeByOracle({ fin: true, opcode: opcodes.close, payload: body, mask: Buffer.alloc(4) })
      const expected = await decodeByOracle(bytes, 'client')
      expect([code, isCloseCode(code)]).toEqual([code, expected.closeCode === code])
    }
  })
})

describe('the frame encoder', () => {
  it('writes frames that ws reads back', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(payload, { maxLength: 5 }), async payloads => {
        const bytes = Buffer.concat(payloads.map(content => encodeFrame('binary', content)))
        const read = await decodeByOracle(bytes, 'server')
        expect(read.violation).toBeUndefined()
        expect(read.payload.equals(Buffer.concat(payloads))).toBe(true)
      }),
    )
  })

  it('writes text as its UTF-8', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), text => {
        expect(encodeText(text)).toEqual(encodeFrame('text', Buffer.from(text)))
      }),
    )
  })

  it('writes close frames that ws reads back, their reason cut at a character within 123 bytes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(1000, 1001, 1011, 3000, 4999),
        fc.string({ unit: 'grapheme', maxLength: 200 }),
        async (code, reason) => {
          const read = await decodeByOracle(encodeClose(code, reason), 'server')
          expect(read.violation).toBeUndefined()
          expect(read.closeCode).toBe(code)
          expect(reason.startsWith(read.closeReason)).toBe(true)
          expect(Buffer.byteLength(read.closeReason)).toBeGreaterThanOrEqual(Math.min(120, Buffer.byteLength(reason)))
        },
      ),
    )
  })
})
