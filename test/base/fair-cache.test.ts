import fc from 'fast-check'
import { expect, it } from 'vitest'
import { FairCache } from '../../src/base/fair-cache.js'

it('forgets the oldest of whoever has as many as are left, and nothing of others', () => {
  const cache = new FairCache<number>(10)
  cache.set('other', 'b', 0)
  for (let key = 0; key < 100; key++) cache.set(`${key}`, 'a', key)
  expect([cache.get('other'), cache.get('99'), cache.get('94'), cache.size]).toEqual([0, 99, undefined, 5])
  for (let key = 0; key < 100; key++) cache.set(`c${key}`, 'c', key)
  expect([cache.get('other'), cache.get('99'), cache.get('c99')]).toEqual([0, 99, 99])
})

it('has no more than there is room for, and what it has is what was set last', () => {
  const steps = fc.array(fc.tuple(fc.nat(20), fc.nat(5), fc.boolean()))
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 10 }), (all, max) => {
      const cache = new FairCache<number>(max)
      const set = new Map<string, number>()
      for (const [index, [key, owner, isSet]] of all.entries()) {
        if (isSet) cache.set(`${key}`, `${owner}`, index)
        else cache.delete(`${key}`)
        if (isSet) set.set(`${key}`, index)
        else set.delete(`${key}`)
        expect(cache.size).toBeLessThanOrEqual(max)
      }
      for (const [key, index] of set) expect([undefined, index]).toContain(cache.get(key))
    }),
  )
})
