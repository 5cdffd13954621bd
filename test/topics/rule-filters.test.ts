import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { covers, isTopicFilter, isTopicName, matchesTopic, splitFilter } from '../../src/topics/rule-filters.js'
import { TopicSet } from '../../src/topics/topic-set.js'

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

const runs = { numRuns: 2000 }

describe('a filter', () => {
  it('matches the topics that MQTT says', () => {
    fc.assert(
      fc.property(filter, text => {
        const expected = oracle(text)
        const levels = splitFilter(text)
        for (const topic of topics) expect([topic, matchesTopic(levels, topic)]).toEqual([topic, expected(topic)])
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
    expect(matchesTopic(splitFilter(text), topic)).toBe(expected)
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
        expect([rule, requested, covers(splitFilter(rule), splitFilter(requested))]).toEqual([
          rule,
          requested,
          expected,
        ])
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
    expect(covers(splitFilter(rule), splitFilter(requested))).toBe(expected)
  })
})

describe('a set of filters', () => {
  it('has the topics that any of them matches', () => {
    fc.assert(
      fc.property(fc.array(filter, { maxLength: 4 }), filters => {
        const set = new TopicSet(filters)
        const oracles = filters.map(oracle)
        for (const topic of topics) {
          expect([topic, set.has(topic)]).toEqual([topic, oracles.some(matches => matches(topic))])
        }
      }),
      { numRuns: 200 },
    )
  })

  it('never covers a filter that matches a topic which it does not have', () => {
    fc.assert(
      fc.property(fc.array(filter, { maxLength: 4 }), filter, (filters, requested) => {
        const set = new TopicSet(filters)
        if (!set.covers(requested)) return
        const matches = oracle(requested)
        for (const topic of topics) if (matches(topic)) expect([topic, set.has(topic)]).toEqual([topic, true])
      }),
      runs,
    )
  })

  it('covers what one of them covers, and does not put two together', () => {
    expect(new TopicSet(['x', 'news/#']).covers('news/+')).toBe(true)
    expect(new TopicSet(['a', 'a/+/#']).covers('a/#')).toBe(false)
    expect(new TopicSet([]).covers('a')).toBe(false)
  })
})

describe('bounds', () => {
  const bounds = { levels: 4, length: 16 }

  it.each(['a', '/', 'a/b/c/d', '///', 'x'.repeat(16), 'ä'.repeat(8), '$SYS/a'])('%s is a topic within them', topic => {
    expect(isTopicName(topic, bounds)).toBe(true)
    expect(isTopicFilter(topic, bounds)).toBe(true)
  })

  it.each(['', 'a\0', 'a/b/c/d/e', '////', 'x'.repeat(17), 'ä'.repeat(9), Array(64).fill('a').join('/')])(
    '%j is not',
    topic => {
      expect(isTopicName(topic, bounds)).toBe(false)
      expect(isTopicFilter(topic, bounds)).toBe(false)
    },
  )

  it.each(['+', '#', 'a/+', 'a/#', 'a+'])('%s is no topic to publish to', topic => {
    expect(isTopicName(topic, bounds)).toBe(false)
  })

  it('a name is a topic exactly where it is a filter without wildcards', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', '/', '+', '#', '\0', 'ä', '€'), maxLength: 12 }), text => {
        expect(isTopicName(text, bounds)).toBe(isTopicFilter(text, bounds) && !/[+#]/.test(text))
      }),
      runs,
    )
  })
})
