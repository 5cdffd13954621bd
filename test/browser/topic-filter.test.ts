import { describe, expect, it } from 'vitest'
import { matches, neighbourhood, objectionToFilter, objectionToTopic } from '../../public/topic-filter.js'

describe('the page, before it subscribes', () => {
  it.each(['/news/+/sport', '/news/#', '#', '+', '/', '+/+', '$SYS/#', 'a//b', 'ü/ß', 'a'.repeat(65_535)])(
    'accepts %.20s',
    filter => {
      expect(objectionToFilter(filter)).toBeUndefined()
    },
  )

  it.each([
    ['', 'empty'],
    ['/news/#/sport', 'only come last'],
    ['/news#', 'alone in its level'],
    ['/news/eu+/sport', 'alone in its level'],
    ['a\0b', 'U+0000'],
    ['ü'.repeat(32_768), '65536 bytes'],
  ])('explains what is wrong with %.20s', (filter, explanation) => {
    expect(objectionToFilter(filter)).toContain(explanation)
  })
})

describe('the page, before it publishes', () => {
  it('refuses wildcards in a topic', () => {
    expect(objectionToTopic('/news/+/sport')).toContain('wildcards')
    expect(objectionToTopic('/news/europe/sport')).toBeUndefined()
  })
})

describe('a topic filter', () => {
  it.each([
    ['/news/+/sport', '/news/europe/sport', true],
    ['/news/+/sport', '/news/sport', false],
    ['/news/+/sport', '/news/europe/sport/today', false],
    ['/news/#', '/news', true],
    ['/news/#', '/news/europe/sport', true],
    ['/news/#', 'news/europe', false],
    ['+/+', '/finance', true],
    ['/+', '/finance', true],
    ['+', '/finance', false],
    ['#', '$SYS/uptime', false],
    ['+/uptime', '$SYS/uptime', false],
    ['$SYS/#', '$SYS/uptime', true],
    ['a/+', 'a/', true],
  ])('%s and the topic %s: %s', (filter, topic, expected) => {
    expect(matches(filter, topic)).toBe(expected)
  })

  it('is suggested for a topic and its neighbours', () => {
    expect(neighbourhood('/news/europe/sport')).toBe('/news/#')
    expect(neighbourhood('a/b')).toBe('a/#')
    expect(neighbourhood('/a')).toBe('/a')
  })
})
