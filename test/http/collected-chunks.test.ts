import fc from 'fast-check'
import { expect, it } from 'vitest'
import { CollectedChunks, requireLargeChunks } from '../../src/http/collected-chunks.js'

it('joins chunks of any lengths in their order', () => {
  const length = fc.oneof(fc.integer({ min: 0, max: 10 }), fc.integer({ min: 0, max: 20_000 }))
  fc.assert(
    fc.property(fc.array(length), lengths => {
      const chunks = lengths.map((size, index) => Buffer.alloc(size, index))
      const collected = new CollectedChunks()
      for (const chunk of chunks) collected.push(chunk)
      const all = Buffer.concat(chunks)
      expect(collected.size).toBe(all.length)
      expect(collected.take().equals(all)).toBe(true)
    }),
  )
})

it('refuses a multitude of tiny ones', () => {
  const collected = new CollectedChunks()
  for (let left = 1000; left > 0; left--) collected.push(Buffer.alloc(1))
  expect(() => collected.push(Buffer.alloc(1))).toThrow(/chunks of less than 64 bytes/)
  expect(() => requireLargeChunks(100_000, 6_400_000)).not.toThrow()
})
