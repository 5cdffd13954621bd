import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RateLimits, TokenBucket } from '../../src/access/rate-limits.js'

/** A clock that goes when it is told to. */
function clock() {
  let time = 1000
  const now = () => time
  return { now, pass: (milliseconds: number) => (time += milliseconds) }
}

describe('a token bucket', () => {
  it('gives a burst at once, then as many per second', () => {
    const { now, pass } = clock()
    const bucket = new TokenBucket({ perSecond: 10, burst: 3 }, now)
    expect([1, 2, 3, 4].map(() => bucket.take())).toEqual([true, true, true, false])
    expect(bucket.wait()).toBe(100)
    pass(99)
    expect(bucket.take()).toBe(false)
    pass(1)
    expect([bucket.wait(), bucket.take(), bucket.take()]).toEqual([0, true, false])
    pass(10_000)
    expect([1, 2, 3, 4].map(() => bucket.take())).toEqual([true, true, true, false])
  })

  it('lets a debt be made, and says how long to pause', () => {
    const { now, pass } = clock()
    const bytes = new TokenBucket({ perSecond: 1000, burst: 1000 }, now)
    expect(bytes.spend(1000)).toBe(0)
    expect(bytes.spend(500)).toBe(500)
    pass(500)
    expect(bytes.wait(0)).toBe(0)
    expect(bytes.spend(64)).toBe(64)
  })

  it('never takes more than there is', () => {
    const { now } = clock()
    const bucket = new TokenBucket({ perSecond: 1, burst: 5 }, now)
    expect([bucket.take(6), bucket.take(5), bucket.take(1)]).toEqual([false, true, false])
    expect(bucket.wait(5)).toBe(5000)
  })

  it('is idle once it is full again', () => {
    const { now, pass } = clock()
    const bucket = new TokenBucket({ perSecond: 2, burst: 9 }, now)
    expect(bucket.idle).toBe(true)
    bucket.take()
    expect(bucket.idle).toBe(false)
    pass(500)
    expect(bucket.idle).toBe(true)
  })

  it('gives in any stretch of time no more than its burst and what flowed in', () => {
    const step = fc.record({ pass: fc.nat(2000), takes: fc.nat(8) })
    const rate = fc.record({ perSecond: fc.integer({ min: 1, max: 50 }), burst: fc.integer({ min: 1, max: 20 }) })
    fc.assert(
      fc.property(rate, fc.array(step, { maxLength: 40 }), (given, steps) => {
        const { now, pass } = clock()
        const bucket = new TokenBucket(given, now)
        const taken: number[] = []
        for (const { pass: milliseconds, takes } of steps) {
          pass(milliseconds)
          for (let count = 0; count < takes; count++) {
            // What it says about waiting is what it does.
            expect(bucket.wait() === 0).toBe(bucket.take() && taken.push(now()) > 0)
          }
        }
        for (const [first, begin] of taken.entries()) {
          for (const [last, end] of taken.entries()) {
            const allowed = given.burst + ((end - begin) * given.perSecond) / 1000
            if (last >= first) expect(last - first + 1).toBeLessThanOrEqual(allowed + 1e-6)
          }
        }
      }),
    )
  })
})

describe('rate limits', () => {
  it('count each key on its own', () => {
    const { now, pass } = clock()
    const limits = new RateLimits({ perSecond: 1, burst: 2, now })
    expect([limits.take('a'), limits.take('a'), limits.take('a'), limits.take('b')]).toEqual([0, 0, 1000, 0])
    expect([limits.wait('a'), limits.wait('b'), limits.wait('c')]).toEqual([1000, 0, 0])
    pass(400)
    expect(limits.take('a')).toBeCloseTo(600)
  })

  it('forget those who did nothing for a while', () => {
    const { now, pass } = clock()
    const limits = new RateLimits({ perSecond: 1, burst: 2, now })
    for (let key = 0; key < 1000; key++) limits.take(`early ${key}`)
    expect(limits.size).toBe(1000)
    pass(5000)
    for (let key = 0; key < 600; key++) limits.take(`late ${key}`)
    expect(limits.size).toBe(600)
  })

  it('remember no more than they may, those who come most often', () => {
    const { now } = clock()
    const limits = new RateLimits({ perSecond: 1, burst: 2, maxKeys: 50, now })
    limits.take('often')
    limits.take('often')
    for (let key = 0; key < 10_000; key++) {
      limits.take(`once ${key}`)
      if (key % 20 === 0) expect(limits.take('often')).toBeGreaterThan(0)
      expect(limits.size).toBeLessThanOrEqual(50)
    }
  })
})
