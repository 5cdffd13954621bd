import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  filterDepthProblem,
  hasForbiddenCharacter,
  isTopicFilter,
  isTopicName,
  isWithinBounds,
  topicFilterProblem,
} from '../../src/topics/topic-syntax.js'

describe('a topic filter', () => {
  const bounds = { topicLevels: 100, topicLength: 65_535 }

  it.each([
    'a',
    '/',
    '#',
    '+',
    '/+',
    '+/+',
    'a/+/b',
    'a/#',
    '+/#',
    '$SYS/#',
    'a b/ü',
    '/'.repeat(99),
    'ü'.repeat(32_767),
  ])('may be %s', filter => expect(isTopicFilter(filter, bounds)).toBe(true))

  it.each([
    '',
    'a+',
    '+a',
    'a#',
    '#a',
    'a/#/b',
    '#/',
    '##',
    '++',
    'a/+b',
    'b+/c',
    'a\0',
    '/'.repeat(100),
    'ü'.repeat(32_768),
  ])('is not %s', filter => expect(isTopicFilter(filter, bounds)).toBe(false))

  it.each([
    ['', /empty/],
    ['a\0', /U\+0000/],
    ['a+', /alone/],
    ['a/+b/c', /alone/],
    ['a#', /alone/],
    ['#/a', /last level only/],
    ['news/#/x', /last level only/],
    ['ä'.repeat(32_768), /65535 bytes/],
  ])('is not %.20s, and says why', (filter, problem) => expect(topicFilterProblem(filter)).toMatch(problem))

  it('is bounded in depth', () => {
    expect(filterDepthProblem('a/'.repeat(99))).toBeUndefined()
    expect(filterDepthProblem('a/'.repeat(100))).toMatch(/at most 100 levels/)
  })
})

describe('a topic', () => {
  const narrow = { topicLevels: 3, topicLength: 8 }

  it.each(['a', 'a/b/c', '//', 'üüüü', '12345678'])('may be as large as %s', topic =>
    expect(isWithinBounds(topic, narrow)).toBe(true),
  )

  it.each(['a/b/c/d', '///', 'üüüüü', '123456789'])('is too large as %s', topic =>
    expect(isWithinBounds(topic, narrow)).toBe(false),
  )
})

describe('bounds', () => {
  const bounds = { topicLevels: 4, topicLength: 16 }

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
      { numRuns: 2000 },
    )
  })
})

describe('characters that a text of MQTT must not have', () => {
  it.each(['\0', '\u0001', '\u001f', '\u007f', '\u009f', '\ud800', '\udfff', '\ufdd0', '\uffff', '\u{1fffe}'])(
    'are found: %j',
    character => {
      for (const text of [character, `a${character}`, `${character}b`, `é${character}/ü`, `\u{2a6d4}${character}`])
        expect(hasForbiddenCharacter(text)).toBe(true)
    },
  )

  it('are found as by a regular expression', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 8 }), text => {
        const expected = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u.test(text)
        expect(hasForbiddenCharacter(text)).toBe(expected)
      }),
      { numRuns: 5000 },
    )
  })

  it('are no others', () => {
    for (const text of ['', 'a/b', 'é/ü', 'A\u{2a6d4}', '\ufffd', '\u2028', ' ', '日本'])
      expect(hasForbiddenCharacter(text)).toBe(false)
  })
})
