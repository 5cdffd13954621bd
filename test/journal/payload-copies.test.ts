import { describe, expect, it } from 'vitest'
import { PayloadCopier, unsharedPayload } from '../../src/journal/payload-copies.js'

describe('a payload that is kept', () => {
  const read = Buffer.allocUnsafeSlow(64 * 1024).fill('payload ')

  it('is a copy where it came with much else, and itself where it is most of its memory', () => {
    const payloads = new PayloadCopier()
    const part = read.subarray(8, 16)
    const own = payloads.of(part)
    expect(own).toEqual(part)
    expect(own.buffer).not.toBe(read.buffer)
    expect(payloads.of(read)).toBe(read)
  })

  it('shares memory with those that are kept before and after it, and with nothing that comes in between', () => {
    const payloads = new PayloadCopier()
    const kept = Array.from({ length: 40 }, (_, index) => {
      // What else a process does meanwhile.
      Buffer.from('x'.repeat(1000))
      return payloads.of(read.subarray(index, index + 400))
    })
    for (const [index, own] of kept.entries()) expect(own).toEqual(read.subarray(index, index + 400))
    const memory = new Set(kept.map(({ buffer }) => buffer))
    expect([...memory].reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThan(2 * 40 * 400)
  })

  it('has memory of its own where it is large', () => {
    const large = read.subarray(0, 4000)
    expect(new PayloadCopier().of(large).buffer.byteLength).toBe(4000)
    expect(unsharedPayload(large).buffer.byteLength).toBe(4000)
  })

  it('is not copied again where it shares its memory with nothing', () => {
    expect(unsharedPayload(read)).toBe(read)
    expect(new PayloadCopier().of(read)).toBe(read)
  })
})
