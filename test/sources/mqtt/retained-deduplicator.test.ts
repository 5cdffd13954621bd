import { describe, expect, it } from 'vitest'
import { RetainedDeduplicator } from '../../../src/sources/mqtt/retained-deduplicator.js'

async function* nothing(): AsyncGenerator<never, void, void> {}

describe('the state that push knows', () => {
  const state = (topic: string, text: string) => ({ topic, payload: Buffer.from(text), qos: 0 as const, retain: true })
  const open = () => RetainedDeduplicator.read({ head: 0, retained: nothing }, ['#', 'a/#'])

  it('is told once for each filter, and is news the first time', async () => {
    const known = await open()
    expect([known.has(state('a/1', 'on')), known.has(state('a/1', 'on'))]).toEqual([false, true])
    expect([known.has(state('b/1', 'on')), known.has(state('b/1', 'on'))]).toEqual([false, false])
  })

  it('does not read payloads of new topics, where they come once', async () => {
    const known = await RetainedDeduplicator.read({ head: 0, retained: nothing }, ['#'])
    const payload = Buffer.alloc(15 * 1024 ** 2)
    const before = process.cpuUsage()
    for (let count = 0; count < 100; count++) known.has({ ...state(`a/${count}`, ''), payload })
    // To hash them would take more than a second.
    expect(process.cpuUsage(before).user).toBeLessThan(200_000)
  })

  it('has an end, whoever publishes on new topics without one', async () => {
    const known = await open()
    for (let count = 0; count < 100_000; count++) known.has(state(`a/${count}`, ''))
    expect(known.has(state('a/0', ''))).toBe(true)
    known.has(state('a/more', ''))
    expect(known.has(state('a/more', ''))).toBe(false)
  })
})
