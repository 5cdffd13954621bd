import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { figuresOf, plan, table, traffics } from '../../bench/scaling.js'

describe('the computation of what browsers need', () => {
  it('is what docs/scaling.md says', () => {
    expect(readFileSync(new URL('../../docs/scaling.md', import.meta.url), 'utf8')).toContain(table())
  })

  it('never needs less for more browsers, or more events', () => {
    const traffic = fc.constantFrom(...traffics)
    const browsers = fc.integer({ min: 1, max: 5_000_000 })
    fc.assert(
      fc.property(traffic, browsers, browsers, fc.integer({ min: 1, max: 10 }), (each, one, other, factor) => {
        const [few, many] = [plan(Math.min(one, other), each), plan(Math.max(one, other), each)]
        const more = plan(one, { ...each, events: each.events * factor })
        for (const [less, greater] of [
          [few, many],
          [plan(one, each), more],
        ] as const) {
          for (const figure of ['gateways', 'cores', 'redisCores', 'memory', 'network', 'redisNetwork'] as const) {
            expect(greater[figure]).toBeGreaterThanOrEqual(less[figure])
          }
        }
      }),
    )
  })

  it('names the processors as the first limit where events are many', () => {
    const traffic = { name: '', events: 10, share: 1, bytes: 400 }
    expect(plan(50_000, traffic).firstLimit).toBe('processors of the gateways')
    expect(plan(50_000, traffic).cores).toBeGreaterThan(4.8)
  })

  it('takes its processor times from a result of the benchmark', () => {
    const round = (user: number) => ({
      load: {
        messages: 1000,
        rounds: 10,
        processes: [
          { user, system: 0 },
          { user: 0.002, system: 0 },
          { user: 1, system: 1 },
        ],
      },
    })
    const systems = {
      'mqway push (memory) + mosquitto': [round(9)],
      'mqway push (Redis) + mosquitto': [0.01, 0.03, 0.02].map(round),
    }
    expect(figuresOf(JSON.stringify({ cells: [{ name: 'redis-sse-1', systems }] }))).toEqual({
      deliveryMicros: 20,
      redisMicros: 200,
    })
    expect(() => figuresOf(JSON.stringify({ cells: [] }))).toThrow('redis-sse-1')
  })
})
