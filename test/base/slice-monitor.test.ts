import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { SliceMonitor } from '../../src/base/slice-monitor.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'

let now = 0
let told: Readonly<Record<string, unknown>>[] = []

function monitor(): SliceMonitor {
  return new SliceMonitor({ onSlow: fields => told.push(fields), now: () => now })
}

beforeEach(() => {
  now = 1000
  told = []
  vi.useFakeTimers({ toFake: ['setImmediate', 'setTimeout', 'clearTimeout'] })
})
afterEach(() => {
  vi.useRealTimers()
})

describe('a slice of the event loop', () => {
  it('ends where the next one begins, or when the loop has come around', () => {
    const slices = monitor()
    slices.begin('mqtt packets', { peer: { address: '192.0.2.1' }, clientId: 'c1' })
    now += 30
    slices.begin('journal')
    now += 19
    vi.runAllTimers()
    now += 500
    slices.begin('http request', { url: '/v1/events?ticket=secret', socket: { remoteAddress: '192.0.2.2' } })
    now += 50
    vi.runAllTimers()
    expect(told).toEqual([
      { cause: 'mqtt packets', ms: 30, peer: '192.0.2.1', clientId: 'c1' },
      { cause: 'http request', ms: 50, peer: '192.0.2.2', path: '/v1/events' },
    ])
    expect(slices.figures.get('mqtt packets')).toEqual({ count: 1, seconds: 0.03, longest: 0.03 })
    expect(slices.figures.get('journal')).toEqual({ count: 0, seconds: 0, longest: 0 })
  })

  it('is named at most once per second: the longest, with how many others there were', () => {
    const slices = monitor()
    const run = (milliseconds: number, network: string): void => {
      slices.begin('web socket', { group: network })
      now += milliseconds
      vi.advanceTimersByTime(0)
    }
    run(21, 'a')
    run(22, 'b')
    run(40, 'c')
    run(23, 'd')
    expect(told).toEqual([{ cause: 'web socket', ms: 21, network: 'a' }])
    now += 1000
    vi.runAllTimers()
    expect(told.slice(1)).toEqual([{ cause: 'web socket', ms: 40, network: 'c', others: 2 }])
    expect(slices.figures.get('web socket')).toMatchObject({ count: 4, longest: 0.04 })
  })

  it('of a task that shares the event loop has the cause that the task names', async () => {
    const slices = monitor()
    const slicer = new TimeSlicer({ length: 4, isBusy: false }, () => now, slices)
    const next = slicer.next('retained messages')
    vi.runOnlyPendingTimers()
    await next
    now += 25
    vi.runAllTimers()
    expect(told).toEqual([{ cause: 'retained messages', ms: 25 }])
  })

  it('tells nothing after the monitor was closed', () => {
    const slices = monitor()
    for (let i = 0; i < 2; i++) {
      slices.begin('replay')
      now += 30
      vi.advanceTimersByTime(0)
    }
    slices.close()
    now += 1000
    vi.runAllTimers()
    expect(told).toHaveLength(1)
  })
})
