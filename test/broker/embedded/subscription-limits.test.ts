import { describe, expect, it } from 'vitest'
import { filterOverhead, SubscriptionLimits } from '../../../src/broker/embedded/subscription-limits.js'
import { limits } from './limits.js'

const size = (filter: string) => Buffer.byteLength(filter) + filterOverhead

describe('the filters that clients are granted', () => {
  it('are bounded by number and by bytes, also after some have gone', () => {
    const subscriptionLimits = new SubscriptionLimits({
      ...limits,
      maxSubscriptions: 3,
      maxSubscriptionBytes: 10,
      holderOf: () => 'somebody',
    })
    const client = { id: 'client' }
    expect(subscriptionLimits.refusal(client, 'four')).toBeUndefined()
    expect(subscriptionLimits.refusal(client, 'four')).toBeUndefined()
    expect(subscriptionLimits.refusal(client, 'ä/ö/ü')).toBe('maxSubscriptionBytes')
    expect(subscriptionLimits.refusal(client, 'five5')).toBeUndefined()
    expect(subscriptionLimits.refusal(client, '1')).toBeUndefined()
    expect(subscriptionLimits.refusal(client, '2')).toBe('maxSubscriptions')
    expect(subscriptionLimits.figures).toEqual({ filters: 3, bytes: size('four') + size('five5') + size('1') })
    subscriptionLimits.release(client, ['four', 'four', 'never'])
    expect(subscriptionLimits.refusal(client, '2')).toBeUndefined()
    subscriptionLimits.left(client)
    expect(subscriptionLimits.figures).toEqual({ filters: 0, bytes: 0 })
    // Aedes goes on with what it had of the client.
    expect(subscriptionLimits.refusal(client, 'late')).toBeUndefined()
    expect(subscriptionLimits.figures).toEqual({ filters: 0, bytes: 0 })
  })

  it('are shared by users and networks, of which each finds room; a session has its filters back all the same', () => {
    const max = 10 * size('f/0')
    const subscriptionLimits = new SubscriptionLimits({
      ...limits,
      maxSubscriptionsBytes: max,
      holderOf: ({ id }) => id.split(' ')[0],
    })
    const count = (id: string) => {
      let granted = 0
      const client = { id }
      while (granted < 10 && subscriptionLimits.refusal(client, `f/${granted}`) === undefined) granted++
      return granted
    }
    const [greedy, other, third] = [count('greedy 1'), count('other 1'), count('third 1')]
    expect([greedy, count('greedy 2')]).toEqual([5, 0])
    expect(Math.min(other, third)).toBeGreaterThanOrEqual(1)
    expect(subscriptionLimits.refusal({ id: 'greedy 3' }, 'f/0')).toBe('maxSubscriptionsBytes')
    expect(subscriptionLimits.refusal({ id: 'greedy 3' }, 'f/0', true)).toBeUndefined()
  })

  it('are without a bound for the program itself', () => {
    const subscriptionLimits = new SubscriptionLimits({
      ...limits,
      maxSubscriptionsBytes: 1,
      holderOf: () => undefined,
    })
    expect(subscriptionLimits.refusal({ id: 'own' }, '#')).toBeUndefined()
  })
})
