import { setImmediate as tick } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { TickBudget } from '../../src/base/tick-budget.js'

it('gives each queue that has work an equal part of the tick', () => {
  const budget = new TickBudget()
  const [one, other, idle] = [budget.open(), budget.open(), budget.open()]
  one.isBusy = true
  const alone = one.length
  expect(idle.length).toBe(alone)
  other.isBusy = true
  other.isBusy = true
  expect([one.length, other.length]).toEqual([alone / 2, alone / 2])
  other.isBusy = false
  expect(one.length).toBe(alone)
})

it('shortens the slices of the tick in which a connection is accepted, and of the next one', async () => {
  const budget = new TickBudget()
  const queue = budget.open()
  queue.isBusy = true
  const usual = queue.length
  budget.accepted()
  const short = queue.length
  expect(short).toBeLessThan(usual / 2)
  await tick()
  expect(queue.length).toBe(short)
  budget.accepted()
  await tick()
  expect(queue.length).toBe(short)
  await tick()
  await tick()
  expect(queue.length).toBe(usual)
})
