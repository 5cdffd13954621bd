import { describe, expect, it } from 'vitest'
import { TimeSlicer } from '../../src/base/time-slicer.js'

describe('slices of the event loop', () => {
  it('go to the tasks in turn, one in each turn of the loop', async () => {
    let now = 0
    const slicer = new TimeSlicer({ length: 4, isBusy: false }, () => now)
    const order: string[] = []
    const task = async (name: string): Promise<void> => {
      await slicer.next()
      for (let step = 0; step < 6; step++) {
        if (slicer.isOver) await slicer.next()
        now += 2
        order.push(name)
      }
    }
    let turns = 0
    const count = (): void => {
      turns++
      if (order.length < 12) setImmediate(count)
    }
    setImmediate(count)
    await Promise.all([task('a'), task('b')])
    expect(order.join('')).toBe('aabbaabbaabb')
    expect(turns).toBeGreaterThanOrEqual(6)
    expect(slicer.waiting).toBe(0)
  })

  it('are over when they have ended ten connections, whose work follows', async () => {
    const slicer = new TimeSlicer({ length: 4, isBusy: false }, () => 0)
    await slicer.next()
    for (let ended = 0; ended < 10; ended++) {
      expect(slicer.isOver).toBe(false)
      slicer.endedConnection()
    }
    expect(slicer.isOver).toBe(true)
    await slicer.next()
    expect(slicer.isOver).toBe(false)
  })

  it('are over for a task that never asked for one', () => {
    expect(new TimeSlicer().isOver).toBe(true)
  })
})
