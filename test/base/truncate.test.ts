import fc from 'fast-check'
import { expect, it } from 'vitest'
import { truncate } from '../../src/base/truncate.js'

it('cuts a text, and no character in two', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.integer({ min: 1, max: 10 }), (text, max) => {
      const short = truncate(text, max)
      expect(short.length).toBeLessThanOrEqual(Math.max(max + 1, 1))
      expect(short).not.toMatch(/\p{Cs}/u)
      expect(short === text || short.endsWith('…')).toBe(true)
      expect(text.startsWith(short.replace(/…$/, ''))).toBe(true)
    }),
  )
})
