import { expect, it } from 'vitest'
import { BodyBudget } from '../../src/http/body-budget.js'

it('leaves room for a network that comes when others hold what they can get', () => {
  const budget = new BodyBudget(1000)
  budget.open({ address: '192.0.2.1' }).resize(500)
  expect(() => budget.open({ address: '192.0.2.1' }).resize(1)).toThrow(/from your address/)
  expect(() => budget.open({ address: '192.0.2.2' }).resize(250)).not.toThrow()
  expect(() => budget.open({ address: '192.0.2.3' }).resize(125)).not.toThrow()
  expect(budget.used).toBe(875)
})

it('counts a user of many networks as one', () => {
  const budget = new BodyBudget(1000)
  budget.open({ address: '192.0.2.1', user: 'ann' }).resize(300)
  budget.open({ address: '192.0.2.2', user: 'ann' }).resize(200)
  const third = budget.open({ address: '192.0.2.3', user: 'ann' })
  expect(() => third.resize(1)).toThrow(/of this user/)
  expect(budget.used).toBe(500)
  expect(() => budget.open({ address: '192.0.2.3', user: 'bob' }).resize(100)).not.toThrow()
})

it('holds as much as before where more does not fit, and nothing in the end', () => {
  const budget = new BodyBudget(1000)
  const held = budget.open({ address: '2001:db8::1', user: 'ann' })
  held.resize(400)
  expect(() => held.resize(600)).toThrow()
  expect(budget.used).toBe(400)
  held.resize(100)
  expect(budget.used).toBe(100)
  held.resize(0)
  held.resize(0)
  expect(budget.used).toBe(0)
})
