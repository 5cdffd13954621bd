import fc from 'fast-check'
import { expect, it } from 'vitest'
import { UnfinishedMessage } from '../../../src/transports/socket/unfinished-message.js'

/** A client's frame; the mask is 0. */
function frame(opcode: number, isLast: boolean, length: number): Buffer {
  const lengths =
    length < 126
      ? Buffer.from([0x80 | length])
      : length < 65_536
        ? Buffer.from([0xfe, length >> 8, length & 0xff])
        : Buffer.concat([Buffer.from([0xff, 0, 0, 0, 0]), Buffer.from(Uint32Array.of(length).buffer).swap32()])
  const first = Buffer.from([opcode | (isLast ? 0x80 : 0)])
  // Bytes that would be headers of frames that are never complete.
  return Buffer.concat([first, lengths, Buffer.alloc(4), Buffer.alloc(length, 0x01)])
}

const ping = frame(9, true, 3)

it('holds nothing when messages are complete, however they are cut into chunks', () => {
  const lengths = fc.array(fc.oneof(fc.nat(200), fc.nat(70_000)), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(fc.array(lengths, { maxLength: 5 }), fc.array(fc.nat(5000)), (messages, cuts) => {
      const frames = messages.flatMap(parts =>
        parts.flatMap((length, index) => [frame(index === 0 ? 1 : 0, index === parts.length - 1, length), ping]),
      )
      const bytes = Buffer.concat(frames)
      const unfinished = new UnfinishedMessage()
      let at = 0
      for (const cut of cuts) {
        unfinished.read(bytes.subarray(at, at + cut))
        at += cut
      }
      unfinished.read(bytes.subarray(at))
      expect(unfinished.held).toBe(0)
      unfinished.read(frame(1, false, 1))
      expect(unfinished.held).toBeGreaterThan(0)
    }),
  )
})

it('counts what each fragment takes beside its bytes', () => {
  const unfinished = new UnfinishedMessage()
  unfinished.read(Buffer.concat([frame(1, false, 1), ...Array.from({ length: 999 }, () => frame(0, false, 1))]))
  expect(unfinished.held).toBeGreaterThan(100_000)
  unfinished.read(ping)
  expect(unfinished.held).toBeGreaterThan(100_000)
  unfinished.read(frame(0, true, 0))
  expect(unfinished.held).toBe(0)
})
