import fc from 'fast-check'
import { expect, it } from 'vitest'
import { CollectedChunks } from '../../src/http/collected-chunks.js'

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
