import { describe, expect, it } from 'vitest'
import { RetainedDeduplicator } from '../../../src/sources/mqtt/retained-deduplicator.js'

describe('the state that push knows', () => {
  const state = (topic: string, text: string) => ({ topic, payload: Buffer.from(text), qos: 0 as const, retain: true })
  const open = () => new RetainedDeduplicator(new Map(), ['#', 'a/#'])

  it('is told once for each filter, and is news the first time', () => {
    const known = open()
    expect([known.has(state('a/1', 'on')), known.has(state('a/1', 'on'))]).toEqual([false, true])
    expect([known.has(state('b/1', 'on')), known.has(state('b/1', 'on'))]).toEqual([false, false])
  })

  it('does not read payloads of new topics, where they come once', () => {
    const known = new RetainedDeduplicator(new Map(), ['#'])
    const payload = Buffer.alloc(15 * 1024 ** 2)
    const before = process.cpuUsage()
    for (let count = 0; count < 100; count++) known.has({ ...state(`a/${count}`, ''), payload })
    // To hash them would take more than a second.
    expect(process.cpuUsage(before).user).toBeLessThan(200_000)
  })

  it('has an end, whoever publishes on new topics without one', () => {
    const known = open()
    for (let count = 0; count < 100_000; count++) known.has(state(`a/${count}`, ''))
    expect(known.has(state('a/0', ''))).toBe(true)
    known.has(state('a/more', ''))
    expect(known.has(state('a/more', ''))).toBe(false)
  })
})
