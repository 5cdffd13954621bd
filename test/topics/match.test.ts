import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { filterCovers, filterMatches, filtersOverlap, topicPredicate } from '../../src/topics/match.js'
import { naiveMatch, filters as someFilters, topics as someTopics } from './filters.js'

/*
 * The oracle: MQTT 3.1.1 §4.7 as a regular expression, asked about every topic of up to four levels. `c` is a level that
 * no generated filter names, so that a wildcard always has a topic of its own.
 */

const words = ['', 'a', 'b', 'c', '$x']

function topicsUpTo(levels: number): string[] {
  if (levels === 1) return words
  const shorter = topicsUpTo(levels - 1)
  const longest = shorter.filter(topic => topic.split('/').length === levels - 1)
  return [...shorter, ...longest.flatMap(topic => words.map(word => `${topic}/${word}`))]
}
const topics = topicsUpTo(4).filter(topic => topic !== '')

function oracle(filter: string): (topic: string) => boolean {
  const source = filter
    .split('/')
    .map((level, index) => {
      const slash = index === 0 ? '' : '/'
      if (level === '#') return index === 0 ? '[^$].*' : '(/.*)?'
      if (level === '+') return index === 0 ? '(?!\\$)[^/]*' : `${slash}[^/]*`
      return slash + level.replace('$', '\\$')
    })
    .join('')
  const pattern = new RegExp(`^${source}$`, 'u')
  return topic => pattern.test(topic)
}

const level = fc.constantFrom('', 'a', 'b', '$x', '+', '+')
const filter = fc
  .tuple(fc.array(level, { maxLength: 3 }), fc.boolean())
  .map(([levels, rest]) => [...levels, ...(rest ? ['#'] : [])].join('/'))
  .filter(text => text !== '')

describe('a filter', () => {
  it('matches the topics that MQTT says', () => {
    fc.assert(
      fc.property(filter, text => {
        const expected = oracle(text)
        expect(topics.filter(topic => filterMatches(text, topic))).toEqual(topics.filter(expected))
      }),
      { numRuns: 200 },
    )
  })

  it.each([
    ['news/#', 'news', true],
    ['news/#', 'newspaper', false],
    ['news/#', 'news/', true],
    ['#', '$SYS/uptime', false],
    ['+/uptime', '$SYS/uptime', false],
    ['$SYS/#', '$SYS/uptime', true],
    ['+', '/', false],
    ['+/+', '/', true],
    ['/+', '/a', true],
    ['a/+/c', 'a//c', true],
  ])('%s matches %s: %s', (text, topic, expected) => {
    expect(filterMatches(text, topic)).toBe(expected)
  })

  it('covers another one if and only if it matches every topic of it', () => {
    // All pairs of filters of up to three levels: random ones miss corners such as +/+/# and /#.
    const levels = ['', 'a', '$x', '+']
    const upToTwo = [...levels, ...levels.flatMap(first => levels.map(second => `${first}/${second}`))]
    const filters = ['#', ...upToTwo.filter(text => text !== ''), ...upToTwo.map(text => `${text}/#`), 'a/+/a', '+/a/+']
    const matched = new Map(filters.map(text => [text, new Set(topics.filter(oracle(text)))]))
    for (const [rule, has] of matched) {
      for (const [requested, wanted] of matched) {
        const expected = [...wanted].every(topic => has.has(topic))
        expect([rule, requested, filterCovers(rule, requested)]).toEqual([rule, requested, expected])
      }
    }
  })

  it.each([
    ['news/#', '#', false],
    ['news/#', 'news/#', true],
    ['news/#', 'news', true],
    ['news/#', '+/sport', false],
    ['news/+', 'news/#', false],
    ['+/#', '#', true],
    ['/+/#', '/#', true],
    ['+/+/#', '/#', true],
    ['+/+/#', '#', false],
    ['#', '$SYS/#', false],
    ['+', '$SYS', false],
    ['$SYS/#', '$SYS/+', true],
    ['a/+/#', 'a/#', false],
  ])('%s covers %s: %s', (rule, requested, expected) => {
    expect(filterCovers(rule, requested)).toBe(expected)
  })
})

describe('a predicate of several filters', () => {
  it('has the topics that any of them matches', () => {
    fc.assert(
      fc.property(fc.array(filter, { maxLength: 8 }), filters => {
        const matches = topicPredicate(filters)
        const oracles = filters.map(oracle)
        expect(topics.filter(matches)).toEqual(topics.filter(topic => oracles.some(one => one(topic))))
      }),
      { numRuns: 200 },
    )
  })
})

describe('long names and single surrogates', () => {
  it('match by one filter as the specification says', () => {
    fc.assert(
      fc.property(someFilters, someTopics, (one, topic) => {
        expect(filterMatches(one, topic)).toBe(naiveMatch(one, topic))
      }),
      { numRuns: 20_000 },
    )
  })

  it('match by predicate as the specification says', () => {
    fc.assert(
      fc.property(fc.array(someFilters, { maxLength: 40 }), someTopics, (filters, topic) => {
        expect(topicPredicate(filters)(topic)).toBe(filters.some(each => naiveMatch(each, topic)))
      }),
      { numRuns: 5000 },
    )
  })
})

describe('two filters', () => {
  it('overlap where a topic matches both, and nowhere else', () => {
    fc.assert(
      fc.property(filter, filter, (one, other) => {
        const [matchesOne, matchesOther] = [oracle(one), oracle(other)]
        const both = topics.some(topic => matchesOne(topic) && matchesOther(topic))
        expect(filtersOverlap(one, other)).toBe(both)
        expect(filtersOverlap(other, one)).toBe(both)
      }),
      { numRuns: 2000 },
    )
  })

  it.each([
    ['supervisor/#', 'supervisor', true],
    ['#', '$SYS/#', false],
    ['+/+/EXITED', 'supervisor/web1/#', true],
    ['a/+', 'a/b/c', false],
    ['a/b/#', 'a', false],
  ])('%s and %s: %s', (one, other, overlap) => {
    expect(filtersOverlap(one, other)).toBe(overlap)
  })
})
