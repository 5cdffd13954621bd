import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FilterIndex } from '../../src/broker/filter-index.js'

/** The rules of MQTT 3.1.1 §4.7, word by word. */
function matches(filter: readonly string[], topic: readonly string[]): boolean {
  if (topic[0]?.startsWith('$') && (filter[0] === '+' || filter[0] === '#')) return false
  return matchesFrom(filter, topic)
}

function matchesFrom([word, ...filter]: readonly string[], topic: readonly string[]): boolean {
  if (word === undefined) return topic.length === 0
  if (word === '#') return true
  const [name, ...rest] = topic
  return name !== undefined && (word === '+' || word === name) && matchesFrom(filter, rest)
}

const word = fc.constantFrom('', 'a', 'b', '$SYS')
const topic = fc.array(word, { minLength: 1, maxLength: 4 })
const filter = fc
  .tuple(fc.array(fc.oneof(word, fc.constant('+')), { maxLength: 3 }), fc.constantFrom('a', '+', '#', ''))
  .map(([words, last]) => [...words, last])

describe('the filter index', () => {
  it('finds what the specification says, and nothing of what was removed', () => {
    fc.assert(
      fc.property(fc.array(filter, { maxLength: 8 }), fc.array(filter, { maxLength: 8 }), topic, (kept, gone, name) => {
        const index = new FilterIndex<string>()
        for (const words of gone) index.add(words.join('/'), `gone ${words.join('/')}`)
        for (const words of kept) index.add(words.join('/'), words.join('/'))
        for (const words of gone) index.remove(words.join('/'), `gone ${words.join('/')}`)
        const expected = new Set(kept.filter(words => matches(words, name)).map(words => words.join('/')))
        expect(new Set(index.match(name.join('/')))).toEqual(expected)
      }),
    )
  })

  it.each([
    ['/news/+/sport', '/news/europe/sport', true],
    ['/news/+/sport', 'news/europe/sport', false],
    ['/news/#', '/news', true],
    ['+/+', '/finance', true],
    ['/+', '/finance', true],
    ['+', '/finance', false],
    ['#', '$SYS/broker/uptime', false],
    ['+/broker/uptime', '$SYS/broker/uptime', false],
    ['$SYS/#', '$SYS/broker/uptime', true],
  ])('%s and %s: %s', (filter, topic, expected) => {
    const index = new FilterIndex<string>()
    index.add(filter, filter)
    expect(index.match(topic)).toEqual(expected ? [filter] : [])
  })
})
