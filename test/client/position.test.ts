import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createPosition } from '../../src/client/position.js'

it('takes each event of an epoch once, in order, however many connections overlap', () => {
  const connection = fc.record({ from: fc.nat(30), count: fc.nat(20) })
  fc.assert(
    fc.property(fc.array(connection), connections => {
      const position = createPosition('e-0')
      const taken: number[] = []
      for (const { from, count } of connections) {
        // Each delivers everything after the place that it began at, which is never behind what was there then.
        const start = Math.min(from, taken.length)
        for (let sequence = start + 1; sequence <= start + count; sequence++) {
          if (position.take({ id: `e-${sequence}`, topic: 't' })) taken.push(sequence)
        }
      }
      expect(taken).toEqual(taken.map((_, index) => index + 1))
      expect(position.cursor).toBe(`e-${taken.length}`)
    }),
  )
})

it('compares numbers, not texts', () => {
  const position = createPosition('e-9')
  expect(position.take({ id: 'e-10' })).toBe(true)
  expect(position.take({ id: 'e-9' })).toBe(false)
})

it('takes an event of another epoch as news', () => {
  const position = createPosition('e-9')
  expect(position.take({ id: 'f-1' })).toBe(true)
  expect(position.cursor).toBe('f-1')
})

it('takes a state once, though its id is older, and again when news have come in between', () => {
  const position = createPosition(undefined)
  const state = { id: 'e-3', topic: 't', retained: true }
  expect(position.take(state)).toBe(true)
  expect(position.take(state)).toBe(false)
  expect(position.cursor).toBeUndefined()
  position.take({ id: 'e-7' })
  expect(position.take(state)).toBe(true)
  expect(position.cursor).toBe('e-7')
})
