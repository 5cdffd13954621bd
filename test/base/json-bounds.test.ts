import fc from 'fast-check'
import { expect, it } from 'vitest'
import { exceededJsonBound, parsePayload } from '../../src/base/json-bounds.js'

/** Values in a JSON value, itself included. */
function count(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1
  return Object.values(value).reduce((sum: number, member) => sum + count(member), 1)
}

it('lets all JSON through that has few values and levels, whatever is in its strings', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 20 }), value => {
      const text = JSON.stringify(value)
      // A colon, a comma and a bracket at most for each.
      expect(exceededJsonBound(text, 3 * count(value))).toBeUndefined()
    }),
  )
})

it('lets no JSON through that has more values', () => {
  fc.assert(
    fc.property(fc.jsonValue(), value => {
      const values = count(value)
      if (values > 2) expect(exceededJsonBound(JSON.stringify(value), values - 2)).toBe('values')
    }),
  )
})

it('bounds levels, and the values of payloads', () => {
  const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels)
  expect(exceededJsonBound(nested(100), 1000)).toBeUndefined()
  expect(exceededJsonBound(nested(101), 1000)).toBe('levels')
  expect(() => parsePayload(nested(101))).toThrow(RangeError)
  expect(() => parsePayload(`[${'0,'.repeat(50_000)}0]`)).toThrow(RangeError)
  expect(parsePayload('{"a":[1,"[[[,,,"]}')).toEqual({ a: [1, '[[[,,,'] })
})
