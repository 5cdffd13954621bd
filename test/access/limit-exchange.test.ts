import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LimitExchange } from '../../src/access/limit-exchange.js'
import { RateLimits } from '../../src/access/rate-limits.js'
import type { SharedState, Usage, UsageReport } from '../../src/storage/shared-state.js'
import { recordingLog } from '../server/rig.js'

/** Gateways with one rate limit, and a clock that the test sets; each exchanges when it is told to. */
function gatewaysOf(count: number, rate: { perSecond: number; burst: number }) {
  let now = 0
  const reports: { from: number; time: number; usage: readonly Usage[] }[] = []
  const logs = recordingLog()
  const gateways = Array.from({ length: count }, (_, from) => {
    let read = 0
    let isAway = false
    const exchange = async (usage: readonly Usage[]): Promise<readonly UsageReport[]> => {
      if (isAway) throw new Error('away')
      if (usage.length > 0) reports.push({ from, time: now, usage })
      const unread = reports.slice(read).filter(report => report.from !== from)
      read = reports.length
      return unread.map(({ time, usage }) => ({ age: now - time, usage }))
    }
    const state: SharedState = {
      exchange,
      collection: () => {
        throw new Error('not used')
      },
    }
    const limits = new RateLimits({ ...rate, now: () => now })
    const exchanges = new LimitExchange({ state, log: logs.log, interval: 2 ** 30 })
    exchanges.share('l', limits)
    return {
      take: (key = 'k') => limits.take(key) === 0,
      limits,
      exchange: () => exchanges.run(),
      leave: (away: boolean) => {
        isAway = away
      },
      close: () => exchanges.close(),
    }
  })
  return { gateways, logs, pass: (milliseconds: number) => (now += milliseconds), now: () => now }
}

const admitted = (takes: number, take: () => boolean): number =>
  Array.from({ length: takes }, take).filter(Boolean).length

describe('rate limits of several gateways', () => {
  it('count what the others have admitted, of each key by itself', async () => {
    const { gateways, pass } = gatewaysOf(2, { perSecond: 1, burst: 10 })
    const [a, b] = gateways
    expect(admitted(20, () => a?.take() ?? false)).toBe(10)
    await a?.exchange()
    await b?.exchange()
    expect(admitted(20, () => b?.take() ?? false)).toBe(0)
    expect(admitted(20, () => b?.take('other') ?? false)).toBe(10)
    pass(3000)
    expect(admitted(20, () => b?.take() ?? false)).toBe(3)
    await b?.exchange()
    await a?.exchange()
    expect(admitted(20, () => a?.take() ?? false)).toBe(0)
  })

  it('count a late report from the time when it was made', async () => {
    const { gateways, pass } = gatewaysOf(2, { perSecond: 1, burst: 10 })
    const [a, b] = gateways
    admitted(20, () => a?.take() ?? false)
    await a?.exchange()
    pass(4000)
    await b?.exchange()
    expect(admitted(20, () => b?.take() ?? false)).toBe(4)
  })

  it('report nothing twice, and not what the others have reported', async () => {
    const { gateways, pass } = gatewaysOf(3, { perSecond: 1, burst: 100 })
    gateways[0]?.limits.spend('k', 30)
    for (let round = 0; round < 5; round++) for (const gateway of gateways) await gateway.exchange()
    for (const { take } of gateways) expect(admitted(200, () => take())).toBe(70)
    pass(1)
  })

  it('are those of each gateway while the state is away, and say so once', async () => {
    const { gateways, logs } = gatewaysOf(2, { perSecond: 1, burst: 10 })
    const [a, b] = gateways
    for (const gateway of gateways) gateway.leave(true)
    expect(admitted(20, () => a?.take() ?? false)).toBe(10)
    for (let round = 0; round < 3; round++) await a?.exchange()
    expect(admitted(20, () => b?.take() ?? false)).toBe(10)
    expect(logs.lines).toHaveLength(1)
    for (const gateway of gateways) gateway.leave(false)
    await b?.exchange()
    await a?.exchange()
    expect(a?.take()).toBe(false)
  })

  it('admit in all the rate, a burst, and for each further gateway a burst and the rate of two intervals', async () => {
    const step = fc.record({ gateway: fc.nat(2), takes: fc.nat(30), pass: fc.nat(60) })
    const property = fc.asyncProperty(
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(step, { minLength: 20, maxLength: 120 }),
      async (perSecond, burst, steps) => {
        const { gateways, pass, now } = gatewaysOf(3, { perSecond, burst })
        const interval = 200
        const next = [0, 66, 133]
        let total = 0
        for (const { gateway, takes, pass: time } of steps) {
          total += admitted(takes, () => gateways[gateway]?.take() ?? false)
          pass(time)
          for (const [index, due] of next.entries()) {
            if (now() < due) continue
            await gateways[index]?.exchange()
            next[index] = now() + interval
          }
          // An exchange is late by as much as one step.
          const overshoot = 2 * (burst + (perSecond * 2 * (interval + 60)) / 1000)
          expect(total).toBeLessThanOrEqual(burst + (perSecond * now()) / 1000 + overshoot + 1e-6)
        }
      },
    )
    await fc.assert(property, { numRuns: 100 })
  })

  it('report the keys of many addresses in parts', async () => {
    const { gateways } = gatewaysOf(2, { perSecond: 1, burst: 1 })
    const [a, b] = gateways
    for (let key = 0; key < 2500; key++) a?.take(String(key))
    await a?.exchange()
    await b?.exchange()
    expect(b?.limits.size).toBe(1000)
    for (let round = 0; round < 2; round++) await a?.exchange()
    await b?.exchange()
    expect(b?.limits.size).toBe(2500)
    for (let key = 0; key < 30_000; key++) a?.take(`more ${key}`)
    expect(a?.limits.takeUsage(1e6)).toHaveLength(20_000)
  })
})
