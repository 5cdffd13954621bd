import fc from 'fast-check'
import { expect, it } from 'vitest'
import { SmallMap } from '../../src/base/small-map.js'

it('a small map is a map, with one entry and with several', () => {
  const key = fc.constantFrom('a', 'b', 'c')
  const command = fc.oneof(
    fc.record({ do: fc.constant('set' as const), key, value: fc.integer() }),
    fc.record({ do: fc.constant('delete' as const), key }),
    fc.record({ do: fc.constant('clear' as const) }),
  )
  fc.assert(
    fc.property(fc.array(command, { maxLength: 20 }), commands => {
      const small = new SmallMap<string, number>()
      const map = new Map<string, number>()
      for (const step of commands) {
        if (step.do === 'clear') {
          small.clear()
          map.clear()
        } else if (step.do === 'delete') expect(small.delete(step.key)).toBe(map.delete(step.key))
        else {
          small.set(step.key, step.value)
          map.set(step.key, step.value)
        }
        expect([...small.keys()]).toEqual([...map.keys()])
        expect([...small.values()]).toEqual([...map.values()])
        expect(small.size).toBe(map.size)
        for (const name of ['a', 'b', 'c']) {
          expect(small.get(name)).toBe(map.get(name))
          expect(small.has(name)).toBe(map.has(name))
        }
      }
    }),
  )
})
