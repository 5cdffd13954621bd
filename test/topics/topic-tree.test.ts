import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TopicTree } from '../../src/topics/topic-tree.js'
import { naiveMatch, filters as someFilters, topics } from './filters.js'

const change = fc.record({ at: fc.nat(20), topic: topics, isDeleted: fc.boolean() })

const found = (tree: TopicTree<unknown>, filters: readonly string[]) =>
  [...tree.match(filters)].filter(name => name !== undefined)

describe('a topic tree', () => {
  it('finds topics as MQTT says, and the value of each, also after some were deleted', () => {
    fc.assert(
      fc.property(fc.array(topics), fc.array(topics), fc.array(someFilters), (added, deleted, filters) => {
        const tree = new TopicTree<string>()
        for (const name of added) tree.set(name, name)
        for (const name of deleted) tree.delete(name)
        const left = new Set(added.filter(name => !deleted.includes(name)))
        expect(tree.size).toBe(left.size)
        for (const name of [...added, ...deleted]) expect(tree.get(name)).toBe(left.has(name) ? name : undefined)
        const expected = [...left].filter(name => filters.some(each => naiveMatch(each, name)))
        expect(found(tree, filters).sort()).toEqual(expected.sort())
      }),
      { numRuns: 3000 },
    )
  })

  it('finds each topic that stays once while others are set and deleted', () => {
    fc.assert(
      fc.property(fc.array(topics), fc.array(change), fc.array(someFilters), (added, changes, filters) => {
        const tree = new TopicTree<string>()
        for (const name of added) tree.set(name, name)
        const touched = new Set(changes.map(each => each.topic))
        const seen: string[] = []
        let at = 0
        for (const name of tree.match(filters)) {
          if (name !== undefined) seen.push(name)
          for (const each of changes) {
            if (each.at !== at) continue
            if (each.isDeleted) tree.delete(each.topic)
            else tree.set(each.topic, each.topic)
          }
          at++
        }
        const stayed = [...new Set(added)].filter(name => !touched.has(name))
        const expected = stayed.filter(name => filters.some(each => naiveMatch(each, name)))
        expect(seen.filter(name => !touched.has(name)).sort()).toEqual(expected.sort())
        for (const name of seen) expect(filters.some(each => naiveMatch(each, name))).toBe(true)
      }),
      { numRuns: 3000 },
    )
  })

  it('takes topics of many levels', () => {
    const deep = 'a/'.repeat(32_000)
    const tree = new TopicTree<number>()
    tree.set(deep, 1)
    expect(found(tree, ['a/#'])).toEqual([deep])
    tree.delete(deep)
    expect(found(tree, ['#'])).toEqual([])
  })

  it('takes memory for characters and not for levels', () => {
    setFlagsFromString('--expose-gc')
    const collect: () => void = runInNewContext('gc')
    const measure = (fill: (tree: TopicTree<number>) => void): number => {
      const tree = new TopicTree<number>()
      collect()
      const before = process.memoryUsage().heapUsed
      fill(tree)
      collect()
      const bytes = process.memoryUsage().heapUsed - before
      expect(tree.size).toBe(1000)
      return bytes
    }
    const deep = measure(tree => {
      for (let i = 0; i < 1000; i++) tree.set(`${i}/${'x/'.repeat(98)}`, 1)
    })
    expect(deep).toBeLessThan(1000 * 1000)
    const cut = measure(tree => {
      for (let i = 0; i < 1000; i++) {
        const long = `level ${i} of some length/${i}-${'y'.repeat(10_000)}`
        tree.set(long, 1)
        tree.set(`level ${i} of some length/short`, 1)
        tree.delete(long)
      }
    })
    expect(cut).toBeLessThan(1000 * 1000)
  })
})
