import { describe, expect, it } from 'vitest'
import { releaseMemory } from '../../src/base/release-memory.js'

// Node 20 has no method for it.
const isSupported = 'transfer' in ArrayBuffer.prototype

describe('releasing memory', () => {
  it('detaches a large buffer that has all of its memory', () => {
    const buffer = Buffer.alloc(5000, 1)
    releaseMemory(buffer)
    expect(buffer.length).toBe(isSupported ? 0 : 5000)
  })

  it('leaves a part of other memory, and small buffers, as they are', () => {
    const whole = Buffer.alloc(10_000, 1)
    const [part, small, pooled] = [whole.subarray(1), Buffer.alloc(100, 1), Buffer.from('a text')]
    for (const buffer of [part, small, pooled]) releaseMemory(buffer)
    expect([whole.length, part.length, small.length, pooled.toString()]).toEqual([10_000, 9999, 100, 'a text'])
  })
})
