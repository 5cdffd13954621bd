import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Shares } from '../../../src/push/receipts/shares.js'

const names = ['a', 'b', 'c', 'd', 'e']

describe('places that many share', () => {
  it('are half of them for one alone, and a third each for two', () => {
    const shares = new Shares(90)
    const takeAll = (name: string): number => {
      while (shares.limit(name, 1) === undefined) shares.take(name, 1)
      return shares.of(name)
    }
    expect([takeAll('a'), shares.limit('a', 1)]).toEqual([45, 'own'])
    shares.giveBack('a', 15)
    expect([takeAll('b'), shares.limit('b', 1), shares.limit('a', 1)]).toEqual([30, 'all', 'all'])
  })

  it('are never more than there are, and whoever has none finds one where there is one', () => {
    const step = fc.record({ name: fc.constantFrom(...names), amount: fc.nat(20), isBack: fc.boolean() })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 60 }), fc.array(step), (most, steps) => {
        const shares = new Shares(most)
        const taken = new Map(names.map(name => [name, 0]))
        for (const { name, amount, isBack } of steps) {
          const own = taken.get(name) ?? 0
          if (isBack) {
            shares.giveBack(name, Math.min(own, amount))
            taken.set(name, own - Math.min(own, amount))
          } else if (shares.limit(name, amount) === undefined) {
            shares.take(name, amount)
            taken.set(name, own + amount)
          }
          const total = [...taken.values()].reduce((sum, count) => sum + count)
          expect(total).toBeLessThanOrEqual(most)
          expect(Math.max(...taken.values())).toBeLessThanOrEqual(shares.half)
          expect(shares.limit('somebody new', 1) === undefined).toBe(total < most)
          for (const [each, count] of taken) expect(shares.of(each)).toBe(count)
        }
      }),
    )
  })
})
