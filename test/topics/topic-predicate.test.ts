import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isShallow, topicPredicate } from '../../src/topics/topic-predicate.js'
import { naiveMatch, filters as someFilters, topics } from './filters.js'

describe('topic filters', () => {
  it('match by predicate as MQTT says', () => {
    fc.assert(
      fc.property(fc.array(someFilters, { maxLength: 40 }), topics, (filters, name) => {
        expect(topicPredicate(filters)(name)).toBe(filters.some(each => naiveMatch(each, name)))
      }),
      { numRuns: 5000 },
    )
  })

  it('are bounded in depth', () => {
    expect(isShallow('a/'.repeat(99))).toBe(true)
    expect(isShallow('a/'.repeat(100))).toBe(false)
  })
})
