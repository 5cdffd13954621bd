import { describe, expect, it } from 'vitest'
import { FilterQuota } from '../../src/hub/filter-quota.js'

describe('the filters of all subscribers', () => {
  const filters = (count: number): string[] => Array.from({ length: count }, (_, index) => `filter/${index}`)

  it('are shared: whoever has most of them leaves room for the others', () => {
    const quota = new FilterQuota(1024 ** 2)
    const greedy = quota.hold('greedy', filters(900))
    expect(() => quota.hold('greedy', filters(900))).toThrow('push.maxSubscriptionsBytes')
    expect(quota.figures).toMatchObject({ refused: 1 })
    const other = quota.hold('other', filters(400))
    greedy.release()
    greedy.release()
    other.release()
    expect(quota.figures.bytes).toBe(0)
  })

  it('are as they were after a change that was refused', () => {
    const quota = new FilterQuota(1024 ** 2)
    const held = quota.hold('somebody', filters(10))
    const { bytes } = quota.figures
    expect(() => held.change(filters(2000))).toThrow('push.maxSubscriptionsBytes')
    expect(quota.figures.bytes).toBe(bytes)
    held.change(filters(5))
    expect(quota.figures.bytes).toBeLessThan(bytes)
  })
})
