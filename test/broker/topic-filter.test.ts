import { describe, expect, it } from 'vitest'
import { isTopicFilter } from '../../src/broker/topic-filter.js'

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
  ])('may be %s', filter => expect(isTopicFilter(filter)).toBe(true))

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
  ])('is not %s', filter => expect(isTopicFilter(filter)).toBe(false))
})
