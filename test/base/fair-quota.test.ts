import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FairQuota } from '../../src/base/fair-quota.js'

const names = ['a', 'b', 'c', 'd', 'e']

describe('a quota that many keys share', () => {
  it('gives half to one key alone, and a third to each of two', () => {
    const quota = new FairQuota(90)
    const takeAll = (name: string): number => {
      while (quota.exceededBy(name, 1) === undefined) quota.take(name, 1)
      return quota.of(name)
    }
    expect([takeAll('a'), quota.exceededBy('a', 1)]).toEqual([45, 'own'])
    quota.giveBack('a', 15)
    expect([takeAll('b'), quota.exceededBy('b', 1), quota.exceededBy('a', 1)]).toEqual([30, 'all', 'all'])
  })

  it('never gives more than there is, and a new key finds a unit where one is left', () => {
    const step = fc.record({ name: fc.constantFrom(...names), amount: fc.nat(20), isBack: fc.boolean() })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 60 }), fc.array(step), (most, steps) => {
        const quota = new FairQuota(most)
        const taken = new Map(names.map(name => [name, 0]))
        for (const { name, amount, isBack } of steps) {
          const own = taken.get(name) ?? 0
          if (isBack) {
            quota.giveBack(name, Math.min(own, amount))
            taken.set(name, own - Math.min(own, amount))
          } else if (quota.exceededBy(name, amount) === undefined) {
            quota.take(name, amount)
            taken.set(name, own + amount)
          }
          const total = [...taken.values()].reduce((sum, count) => sum + count)
          expect(total).toBeLessThanOrEqual(most)
          expect(Math.max(...taken.values())).toBeLessThanOrEqual(quota.half)
          expect(quota.exceededBy('somebody new', 1) === undefined).toBe(total < most)
          for (const [each, count] of taken) expect(quota.of(each)).toBe(count)
          expect(quota.total).toBe(total)
        }
      }),
    )
  })
})
