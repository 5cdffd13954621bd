import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FilterIndex } from '../../src/topics/filter-index.js'
import { filters as filter, naiveMatch, topics as topic } from './filters.js'

const found = (index: FilterIndex<number>, name: string) =>
  index
    .match(name)
    .flatMap(values => [...values].map(value => `${values.filter} ${value}`))
    .sort()

describe('the filter index', () => {
  it('finds what the specification says, after filters came and went in any order', () => {
    const changes = fc.array(fc.tuple(fc.boolean(), filter, fc.nat(2)), { maxLength: 24 })
    fc.assert(
      fc.property(changes, fc.array(topic, { minLength: 1, maxLength: 12 }), (steps, names) => {
        const index = new FilterIndex<number>()
        const left = new Set<string>()
        for (const [adds, each, value] of steps) {
          if (adds) {
            index.add(each, value)
            left.add(`${each} ${value}`)
          } else expect(index.remove(each, value)).toBe(left.delete(`${each} ${value}`))
        }
        const filters = new Set([...left].map(text => text.slice(0, -2)))
        expect(index.size).toBe(filters.size)
        expect(new Set([...index.filters()].map(values => values.filter))).toEqual(filters)
        for (const each of filters) expect(index.get(each)?.size).toBeGreaterThan(0)
        for (const [, each] of steps) expect(index.get(each) !== undefined).toBe(filters.has(each))
        for (const name of names) {
          expect(found(index, name)).toEqual([...left].filter(text => naiveMatch(text.slice(0, -2), name)).sort())
        }
      }),
      { numRuns: 5000 },
    )
  })

  it('forgets everything that is removed, whatever the order', () => {
    fc.assert(
      fc.property(fc.uniqueArray(filter, { maxLength: 12 }), fc.infiniteStream(fc.nat()), (filters, order) => {
        const index = new FilterIndex<number>()
        for (const each of filters) index.add(each, 1)
        const left = [...filters]
        for (const at of order) {
          const [each] = left.splice(at % Math.max(1, left.length), 1)
          if (each === undefined) break
          expect(index.remove(each, 1)).toBe(true)
        }
        expect(index.size).toBe(0)
        expect([...index.filters()]).toEqual([])
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
    const index = new FilterIndex<number>()
    index.add(filter, 1)
    expect(found(index, topic)).toEqual(expected ? [`${filter} 1`] : [])
  })

  it('takes topics of any depth', () => {
    const index = new FilterIndex<number>()
    index.add('#', 1)
    index.add('a/+/#', 2)
    expect(found(index, 'a/'.repeat(32_000))).toEqual(['# 1', 'a/+/# 2'])
  })
})
