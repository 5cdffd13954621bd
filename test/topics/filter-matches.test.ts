import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { filterMatches } from '../../src/topics/filter-matches.js'
import { filters, naiveMatch, topics } from './filters.js'

describe('one filter', () => {
  it('matches what the specification says', () => {
    fc.assert(
      fc.property(filters, topics, (filter, topic) => {
        expect(filterMatches(filter, topic)).toBe(naiveMatch(filter, topic))
      }),
      { numRuns: 20_000 },
    )
  })
})
