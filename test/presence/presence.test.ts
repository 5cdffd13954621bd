import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../../src/base/clock.js'
import type { Listener, PresenceHandle } from '../../src/presence/presence.js'
import type { PresenceChange } from '../../src/presence/presence-messages.js'
import { PresenceRegistry, type PresenceRegistryOptions } from '../../src/presence/presence-registry.js'
import { topicPredicate } from '../../src/topics/match.js'

/** A clock that a test turns. */
class TestClock implements Clock {
  #passed = 0
  /** How often somebody wanted to be called, and has not been. */
  timers = 0
  #due: { at: number; call: () => void }[] = []

  now(): number {
    return Date.UTC(2026, 0, 1) + this.#passed
  }

  monotonic(): number {
    return this.#passed
  }

  after(ms: number, call: () => void): () => void {
    const entry = { at: this.#passed + ms, call }
    this.#due.push(entry)
    this.timers++
    return () => this.#take(entry)
  }

  #take(entry: { at: number; call: () => void }): void {
    const index = this.#due.indexOf(entry)
    if (index === -1) return
    this.#due.splice(index, 1)
    this.timers--
  }

  pass(ms: number): void {
    const until = this.#passed + ms
    for (;;) {
      const [next] = this.#due.sort((a, b) => a.at - b.at)
      if (!next || next.at > until) break
      this.#passed = Math.max(this.#passed, next.at)
      this.#take(next)
      next.call()
    }
    this.#passed = until
  }
}

describe('presence', () => {
  let clock: TestClock
  let told: PresenceChange[]
  let presence: PresenceRegistry

  const start = (options: Partial<PresenceRegistryOptions> = {}): void => {
    clock = new TestClock()
    told = []
    presence = new PresenceRegistry({
      grace: 10_000,
      onChange: change => told.push(change),
      clock,
      ...options,
    })
  }
  beforeEach(() => start())
  const enter = (device: string, topics: string[], more: Partial<Listener> = {}): PresenceHandle =>
    presence.enter({ device, transport: 'sse', topics, ...more })
  /** What was told since the last call: `+` or `-`, device, filter, count. */
  const news = (): string[] =>
    told.splice(0).map(({ event, device, filter, count }) => {
      return `${event === 'join' ? '+' : '-'}${device} ${filter} ${count}`
    })
  const devices = (topic: string): string[] => presence.at(topic, 100).listeners.map(({ device }) => device)

  it('knows who listens to a topic by whatever filter, and with which', () => {
    enter('a', ['news/#', 'weather'], { user: 'alice' })
    clock.pass(1000)
    enter('b', ['news/+/sport'], { transport: 'mqtt' })
    expect(presence.at('news/eu/sport', 10)).toEqual({
      count: 2,
      listeners: [
        {
          device: 'a',
          user: 'alice',
          transport: 'sse',
          topics: ['news/#'],
          connections: 1,
          since: Date.UTC(2026, 0, 1),
          lastSeen: Date.UTC(2026, 0, 1),
        },
        {
          device: 'b',
          user: undefined,
          transport: 'mqtt',
          topics: ['news/+/sport'],
          connections: 1,
          since: Date.UTC(2026, 0, 1, 0, 0, 1),
          lastSeen: Date.UTC(2026, 0, 1, 0, 0, 1),
        },
      ],
    })
    expect(devices('weather')).toEqual(['a'])
    expect(devices('elsewhere')).toEqual([])
  })

  it('knows who listens with exactly a filter', () => {
    enter('a', ['news/#', 'news/+'])
    enter('b', ['news/+'])
    enter('c', ['news/eu'])
    expect(devices('news/+')).toEqual(['a', 'b'])
    expect(devices('news/#')).toEqual(['a'])
    expect(devices('#')).toEqual([])
  })

  it('lists as many as were asked for, and counts all, each once', () => {
    for (let at = 0; at < 20; at++) enter(`d${at}`, ['a/b', 'a/+', '#'])
    const { count, listeners } = presence.at('a/b', 3)
    expect(count).toBe(20)
    expect(listeners.map(({ device, topics }) => [device, [...topics].sort()])).toEqual(
      ['d0', 'd1', 'd2'].map(device => [device, ['#', 'a/+', 'a/b']]),
    )
    expect(presence.devicesAt('a/b', 4)).toHaveLength(4)
  })

  it('names a device once, whatever it listens on', () => {
    enter('a', ['x'])
    enter('a', ['#'], { transport: 'mqtt' })
    enter('a', ['x'], { user: 'alice' })
    expect(presence.devicesAt('x', 10)).toEqual(['a'])
    expect(presence.at('x', 10).count).toBe(3)
  })

  it('tells apart devices of the same name that belong to different users', () => {
    enter('a', ['x'], { user: 'alice' })
    enter('a', ['x']).leave()
    clock.pass(10_000)
    expect(presence.at('x', 10).listeners).toMatchObject([{ user: 'alice' }])
  })

  it('takes nobody for a user because of what they call themselves', () => {
    enter('phone', ['news'], { user: 'alice', transport: 'mqtt' })
    enter('alice\nphone', ['news'], { transport: 'mqtt' })
    expect(devices('news')).toEqual(['phone', 'alice\nphone'])
  })

  it('counts by filter, those with the most listeners first', () => {
    enter('a', ['x', 'y', 'z'])
    enter('b', ['x', 'y'])
    enter('c', ['x', 'w'])
    const entries = (limit: number) => [...presence.counts(limit).topics]
    expect(presence.counts(10).count).toBe(3)
    expect(entries(10)).toEqual([
      ['x', 3],
      ['y', 2],
      ['z', 1],
      ['w', 1],
    ])
    expect(entries(3)).toEqual([
      ['x', 3],
      ['y', 2],
      ['z', 1],
    ])
    expect(entries(1)).toEqual([['x', 3]])
    expect(entries(0)).toEqual([])
  })

  it('tells who comes at once, and who leaves after the grace time', () => {
    const a = enter('a', ['x', 'y'])
    const b = enter('b', ['x'])
    expect(news()).toEqual(['+a x 1', '+a y 1', '+b x 2'])
    a.leave()
    clock.pass(9999)
    expect(news()).toEqual([])
    expect(presence.at('x', 10).listeners).toMatchObject([
      { device: 'a', connections: 0, lastSeen: clock.now() - 9999 },
      { device: 'b', connections: 1 },
    ])
    clock.pass(1)
    expect(news()).toEqual(['-a x 1', '-a y 0'])
    b.leave()
    b.leave()
    clock.pass(10_000)
    expect(news()).toEqual(['-b x 0'])
    expect(presence.size).toBe(0)
    expect(clock.timers).toBe(0)
  })

  it('tells nothing of somebody who comes back in time, but of the filters that are others', () => {
    enter('a', ['x', 'y']).leave()
    clock.pass(9000)
    const back = enter('a', ['y', 'z'])
    expect(news()).toEqual(['+a x 1', '+a y 1', '+a z 1'])
    clock.pass(5000)
    expect(news()).toEqual(['-a x 0'])
    expect(presence.at('y', 1).listeners).toMatchObject([{ since: Date.UTC(2026, 0, 1) }])
    back.leave()
    clock.pass(10_000)
    expect(news()).toEqual(['-a y 0', '-a z 0'])
  })

  it('takes somebody who comes back on another transport for another listener', () => {
    enter('a', ['x']).leave()
    enter('a', ['x'], { transport: 'poll' })
    clock.pass(10_000)
    expect(news()).toEqual(['+a x 1', '+a x 2', '-a x 1'])
  })

  it('lets go of somebody at once where there is no grace time', () => {
    start({ grace: 0 })
    enter('a', ['x']).leave()
    expect(news()).toEqual(['+a x 1', '-a x 0'])
    expect(clock.timers).toBe(0)
  })

  it('takes all connections of one listener for one, until the last has gone', () => {
    const first = enter('a', ['x', 'y'])
    const second = enter('a', ['x'])
    expect(news()).toEqual(['+a x 1', '+a y 1'])
    expect(presence.at('x', 1)).toMatchObject({ count: 1, listeners: [{ connections: 2 }] })
    first.leave()
    clock.pass(10_000)
    expect(news()).toEqual(['-a y 0'])
    expect(presence.at('x', 1).listeners).toMatchObject([{ connections: 1 }])
    second.leave()
    clock.pass(10_000)
    expect(news()).toEqual(['-a x 0'])
  })

  it('knows at once what somebody who is there listens to no longer', () => {
    const a = enter('a', ['x', 'x', 'y'])
    a.change(['y', 'z'])
    expect(news()).toEqual(['+a x 1', '+a y 1', '+a z 1', '-a x 0'])
    a.remove(['y', 'never'])
    a.add(['z', 'w'])
    expect(news()).toEqual(['-a y 0', '+a w 1'])
    a.change([])
    expect(news()).toEqual(['-a z 0', '-a w 0'])
    expect(presence.size).toBe(0)
    clock.pass(5)
    a.add(['x'])
    expect(presence.at('x', 1)).toMatchObject({ count: 1, listeners: [{ since: clock.now() }] })
  })

  it('knows the last sign of life', () => {
    const a = enter('a', ['x'])
    clock.pass(30_000)
    a.seen()
    clock.pass(1000)
    expect(presence.at('x', 1).listeners).toMatchObject([{ since: clock.now() - 31_000, lastSeen: clock.now() - 1000 }])
  })

  it('runs one timer for everybody', () => {
    const all = Array.from({ length: 1000 }, (_, at) => enter(`d${at}`, ['x', `own/${at}`]))
    for (const [at, attendance] of all.entries()) {
      clock.pass(at % 2)
      attendance.leave()
    }
    expect(clock.timers).toBe(1)
    clock.pass(9499)
    expect(presence.size).toBe(1000)
    // The last of them left at 500, and the first at 0.
    clock.pass(401)
    expect(presence.size).toBe(199)
    clock.pass(100)
    expect(presence.size).toBe(0)
    expect(clock.timers).toBe(0)
  })

  it('lets go of ten thousand in portions', () => {
    const all = Array.from({ length: 10_000 }, (_, at) => enter(`d${at}`, ['x']))
    for (const attendance of all) attendance.leave()
    let most = 0
    let calls = 0
    const { after } = TestClock.prototype
    clock.after = (ms, call) =>
      after.call(clock, ms, () => {
        const before = presence.size
        call()
        calls++
        most = Math.max(most, before - presence.size)
      })
    clock.pass(10_000)
    expect(presence.size).toBe(0)
    expect(calls).toBeGreaterThan(10)
    expect(most).toBeLessThanOrEqual(500)
  })

  it('has those who leave gone at once where too many of their address are in their grace time', () => {
    start({ maxLingering: 4 })
    for (const device of ['a', 'b', 'c', 'd', 'e']) enter(device, ['x']).leave()
    expect(news().filter(text => text.startsWith('-'))).toEqual(['-c x 2', '-d x 2', '-e x 2'])
    clock.pass(10_000)
    expect(presence.size).toBe(0)
  })

  it('has room for others, however many filters one address listens to, and in however many grace times', () => {
    start({ maxLingering: 10, maxMemberships: 20 })
    const all = Array.from({ length: 100 }, (_, index) => `flood/${index}`)
    presence.enter({ device: 'a', address: '192.0.2.1', transport: 'poll', topics: all }).leave()
    presence.enter({ device: 'b', address: '192.0.2.1', transport: 'poll', topics: all })
    const other = presence.enter({ device: 'c', address: '192.0.2.2', transport: 'poll', topics: ['x'] })
    expect(presence.at('x', 10).count).toBe(1)
    other.leave()
    expect(presence.at('x', 10).count).toBe(1)
    clock.pass(10_000)
    expect(presence.at('x', 10).count).toBe(0)
  })

  it('does not see those for whose filters there is no room, and goes wrong with nobody for it', () => {
    start({ grace: 0, maxMemberships: 6 })
    const a = enter('a', ['x', 'y', 'z', 'w'])
    const b = enter('b', ['x'])
    expect([news(), presence.unseen, presence.size]).toEqual([['+a x 1', '+a y 1', '+a z 1'], 2, 1])
    a.remove(['y', 'w'])
    const again = enter('b', ['x'])
    b.leave()
    expect(presence.at('x', 10).listeners).toMatchObject([{ device: 'a' }, { device: 'b', connections: 1 }])
    a.add(['w'])
    expect(presence.unseen).toBe(3)
    again.leave()
    a.add(['w'])
    a.leave()
    expect(news()).toEqual(['-a y 0', '+b x 2', '-b x 1', '+a w 1', '-a x 0', '-a z 0', '-a w 0'])
    expect(presence.size).toBe(0)
  })

  it('tells nothing any more once it is closed', () => {
    const a = enter('a', ['x'])
    const b = enter('b', ['x'])
    a.leave()
    presence.close()
    expect(clock.timers).toBe(0)
    news()
    b.leave()
    clock.pass(20_000)
    expect(news()).toEqual([])
  })

  it('is what those who came and went make it, whatever they do', () => {
    const filters = ['a', 'a/b', 'a/+', '#', '+/b', 'c']
    const some = fc.subarray(filters)
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('enter' as const),
        device: fc.constantFrom('p', 'q'),
        transport: fc.constantFrom('sse' as const, 'poll' as const),
        topics: some,
      }),
      fc.record({
        kind: fc.constantFrom('change' as const, 'add' as const, 'remove' as const),
        at: fc.nat(),
        topics: some,
      }),
      fc.record({ kind: fc.constant('leave' as const), at: fc.nat() }),
      fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(6000) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), steps => {
        start()
        // The model: connections that are open, and when those that are not any more were last there.
        const open: { key: string; device: string; topics: Set<string>; attendance: PresenceHandle }[] = []
        const until = new Map<string, number>()
        const joined = new Map<string, number>()
        const isOpen = (key: string, filter: string) => open.some(each => each.key === key && each.topics.has(filter))
        const expected = (): Set<string> => {
          const there = new Set(open.flatMap(({ key, topics }) => [...topics].map(filter => `${key} ${filter}`)))
          for (const [entry, end] of until) if (end > clock.monotonic()) there.add(entry)
          return there
        }
        for (const each of steps) {
          if (each.kind === 'pass') clock.pass(each.ms)
          else if (each.kind === 'enter') {
            const { device, transport, topics } = each
            const attendance = enter(device, topics, { transport })
            const key = `${transport} ${device}`
            open.push({ key, device, topics: new Set(topics), attendance })
            for (const filter of topics) until.delete(`${key} ${filter}`)
          } else {
            const one = open[each.at % Math.max(1, open.length)]
            if (!one) continue
            const { key, attendance } = one
            if (each.kind === 'leave') {
              attendance.leave()
              open.splice(open.indexOf(one), 1)
              for (const filter of one.topics) {
                if (!isOpen(key, filter)) until.set(`${key} ${filter}`, clock.monotonic() + 10_000)
              }
            } else {
              attendance[each.kind](each.topics)
              const kept =
                each.kind === 'change'
                  ? []
                  : [...one.topics].filter(filter => each.kind === 'add' || !each.topics.includes(filter))
              one.topics = new Set(each.kind === 'remove' ? kept : [...kept, ...each.topics])
              for (const filter of one.topics) until.delete(`${key} ${filter}`)
            }
          }
          for (const { event, transport, device, filter, count } of told.splice(0)) {
            const entry = `${transport} ${device} ${filter}`
            const before = joined.get(filter) ?? 0
            expect([entry, count]).toEqual([entry, before + (event === 'join' ? 1 : -1)])
            joined.set(filter, count)
          }
          const there = [...expected()].map(entry => entry.split(' '))
          for (const topic of ['a', 'a/b', 'c', 'd']) {
            const matching = there.filter(([, , filter = '']) => topicPredicate([filter])(topic))
            expect(presence.at(topic, 100).count).toBe(new Set(matching.map(([a, b]) => `${a} ${b}`)).size)
            expect([...presence.devicesAt(topic, 9)].sort()).toEqual([...new Set(matching.map(([, b]) => b))].sort())
          }
          const counts = new Map<string, number>()
          for (const [, , filter = ''] of there) counts.set(filter, (counts.get(filter) ?? 0) + 1)
          expect(presence.counts(100).topics).toEqual(counts)
          expect(new Map([...joined].filter(([, count]) => count > 0))).toEqual(counts)
          expect(presence.size).toBe(new Set(there.map(([a, b]) => `${a} ${b}`)).size)
          expect(clock.timers).toBeLessThanOrEqual(1)
        }
      }),
      { numRuns: 1000 },
    )
  })
})
