import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Deadlines } from '../../src/base/deadlines.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import { eventually } from '../helpers/wait.js'

const start = 1_000_000

describe('deadlines', () => {
  let due: string[]
  let errors: unknown[]
  const make = (onDue: (key: string) => Promise<void> | void = key => void due.push(key)) =>
    new Deadlines<string>({
      onDue,
      onError: error => errors.push(error),
      slicer: new TimeSlicer(),
      cause: 'sessions',
    })

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'], now: start })
    due = []
    errors = []
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  it('come in order, the changed ones at their last time, and the removed ones not at all', async () => {
    const operation = fc.record({ key: fc.nat(20).map(String), time: fc.option(fc.nat(1000)) })
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 100 }), fc.nat(1000), async (operations, until) => {
        vi.setSystemTime(start)
        due = []
        const deadlines = make()
        const model = new Map<string, number>()
        for (const { key, time } of operations) {
          if (time === null) {
            deadlines.delete(key)
            model.delete(key)
          } else {
            deadlines.set(key, start + time)
            model.set(key, time)
          }
        }
        vi.setSystemTime(start + until)
        await deadlines.run()
        const times = due.map(key => model.get(key) ?? Number.NaN)
        expect(times).toEqual([...times].sort((a, b) => a - b))
        expect(due.sort()).toEqual([...model].flatMap(([key, time]) => (time <= until ? [key] : [])).sort())
        expect(deadlines.size).toBe(model.size - due.length)
        await deadlines.stop()
      }),
      { numRuns: 200 },
    )
  })

  it('have one timer, for the first of them', async () => {
    const deadlines = make()
    for (const [key, seconds] of [
      ['b', 20],
      ['a', 10],
      ['c', 3_000_000],
    ] as const)
      deadlines.set(key, start + 1000 * seconds)
    expect(vi.getTimerCount()).toBe(1)
    vi.advanceTimersByTime(9999)
    expect(due).toEqual([])
    vi.advanceTimersByTime(1)
    await eventually(() => due.join() === ['a'].join())
    await eventually(() => vi.getTimerCount() === 1)
    vi.advanceTimersByTime(10_000)
    await eventually(() => due.join() === ['a', 'b'].join())
    // Longer than `setTimeout` can wait.
    for (let day = 0; day < 36; day++) {
      vi.advanceTimersByTime(86_400_000)
      await deadlines.run()
    }
    expect(due).toEqual(['a', 'b', 'c'])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('go on after one that failed, and end with `stop`', async () => {
    const deadlines = make(key => {
      due.push(key)
      if (key === 'bad') throw new Error('disk full')
    })
    deadlines.set('bad', start - 1)
    deadlines.set('good', start)
    expect([deadlines.isDue('bad'), deadlines.isDue('good'), deadlines.isDue('none')]).toEqual([true, true, false])
    await deadlines.run()
    expect(due).toEqual(['bad', 'good'])
    expect(errors).toEqual([new Error('disk full')])
    await deadlines.stop()
    deadlines.set('late', start)
    await deadlines.run()
    expect(vi.getTimerCount()).toBe(0)
    expect(due).toEqual(['bad', 'good'])
  })
})
