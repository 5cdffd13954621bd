import { expect, it } from 'vitest'
import { backoff } from '../../src/client/backoff.js'

it('waits twice as long after each failure, up to the most', () => {
  expect([1, 2, 3, 4, 5, 1000].map(failures => backoff(failures, 500, 4000, 1))).toEqual([
    500, 1000, 2000, 4000, 4000, 4000,
  ])
})

it('spreads clients over half of that time', () => {
  expect(backoff(1, 500, 4000, 0)).toBe(250)
  for (let i = 0; i < 100; i++) {
    expect(backoff(2, 500, 4000)).toBeGreaterThanOrEqual(500)
    expect(backoff(2, 500, 4000)).toBeLessThanOrEqual(1000)
  }
})
