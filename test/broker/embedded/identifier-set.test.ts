import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { IdentifierSet } from '../../../src/broker/embedded/identifier-set.js'

it('a set of packet identifiers is what a Set is', () => {
  const id = fc.integer({ min: 1, max: 65_535 })
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.oneof(id, fc.integer({ min: 1, max: 9 })))), steps => {
      const ids = new IdentifierSet()
      const model = new Set<number>()
      for (const [isAdded, value] of steps) {
        if (isAdded) ids.add(value)
        else ids.delete(value)
        if (isAdded) model.add(value)
        else model.delete(value)
        expect(ids.has(value)).toBe(model.has(value))
        expect(ids.isEmpty).toBe(model.size === 0)
      }
      for (const value of model) expect(ids.has(value)).toBe(true)
    }),
  )
})
