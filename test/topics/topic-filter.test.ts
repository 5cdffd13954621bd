import { describe, expect, it } from 'vitest'
import { isTopicFilter, isWithin } from '../../src/topics/topic-filter.js'

const bounds = { topicLevels: 100, topicLength: 65_535 }

describe('a topic filter', () => {
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
})

describe('a topic', () => {
  const narrow = { topicLevels: 3, topicLength: 8 }

  it.each(['a', 'a/b/c', '//', 'üüüü', '12345678'])('may be as large as %s', topic =>
    expect(isWithin(topic, narrow)).toBe(true),
  )

  it.each(['a/b/c/d', '///', 'üüüüü', '123456789'])('is too large as %s', topic =>
    expect(isWithin(topic, narrow)).toBe(false),
  )
})
