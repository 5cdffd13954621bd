import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FairQueue } from '../../src/base/fair-queue.js'

describe('a fair queue', () => {
  it('keeps the order of each key, and takes from one key after the other', () => {
    const keys = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 30 })
    fc.assert(
      fc.property(keys, pushed => {
        const queue = new FairQueue<string>()
        for (const [index, key] of pushed.entries()) queue.push(key, `${key}${index}`)
        expect(queue.size).toBe(pushed.length)
        const taken = Array.from(pushed, () => queue.shift() ?? '')
        for (const key of ['a', 'b', 'c']) {
          const own = taken.filter(item => item.startsWith(key))
          expect(own).toEqual(pushed.map((each, index) => `${each}${index}`).filter(item => item.startsWith(key)))
          // The n-th of one key is never behind more than n of another one.
          for (const [n, item] of own.entries()) {
            const before = taken.slice(0, taken.indexOf(item))
            for (const other of ['a', 'b', 'c']) {
              expect(before.filter(each => each.startsWith(other)).length).toBeLessThanOrEqual(n + 1)
            }
          }
        }
        expect([queue.size, queue.shift()]).toEqual([0, undefined])
      }),
    )
  })

  it('takes what was put first before the others of its key', () => {
    const queue = new FairQueue<number>()
    queue.push('a', 3)
    queue.push('b', 10)
    queue.unshift('a', [1, 2])
    expect([queue.size, queue.shift(), queue.shift(), queue.shift(), queue.shift()]).toEqual([4, 1, 10, 2, 3])
  })

  it('takes items of keys that were charged much after the others, until a second is over', () => {
    let now = 0
    const queue = new FairQueue<string>(() => now)
    queue.push('a', 'a0')
    queue.charge('a', 2 ** 20)
    queue.push('a', 'a1')
    for (let i = 0; i < 12; i++) queue.push('b', `b${i}`)
    expect(Array.from({ length: 9 }, () => queue.shift())).toEqual(Array.from({ length: 9 }, (_, i) => `b${i}`))
    now = 2000
    expect([queue.shift(), queue.shift(), queue.shift(), queue.size]).toEqual(['b9', 'a0', 'b10', 2])
  })

  it('gives keys that were charged much an eighth of the work while others wait', () => {
    const queue = new FairQueue<string>(() => 0)
    for (let i = 0; i < 1000; i++) queue.push('heavy', 'heavy')
    queue.charge('heavy', 2 ** 20)
    for (let i = 0; i < 100_000; i++) queue.push(`light ${i % 10}`, 'light')
    const work = { heavy: 0, light: 0 }
    for (let i = 0; i < 20_000; i++) {
      const taken = queue.shift()
      if (taken === 'heavy') queue.charge('heavy', 100 * 1024)
      if (taken === 'heavy' || taken === 'light') work[taken] += taken === 'heavy' ? 101 : 1
    }
    expect(work.heavy / (work.heavy + work.light)).toBeCloseTo(1 / 8, 1)
    expect(work.heavy).toBeGreaterThan(0)
  })
})
