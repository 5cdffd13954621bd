import { afterEach, beforeEach, expect, it } from 'vitest'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import type { PresenceHandle } from '../../src/presence/presence.js'
import type { PresenceChange } from '../../src/presence/presence-messages.js'
import { SharedPresence } from '../../src/presence/shared-presence.js'
import { makeRandom } from '../fuzz/random.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { startPresence, type TestPresence, type TestPresenceOptions } from './shared-rig.js'

describeWith(['redis-server'], 'presence of several gateways', () => {
  let redis: RedisServer
  let told: PresenceChange[]
  let ends = 0
  const gateways: TestPresence[] = []
  const start = async (options: Partial<TestPresenceOptions> = {}): Promise<TestPresence> => {
    const gateway = await startPresence({ redis, told, ...options })
    gateways.push(gateway)
    return gateway
  }
  /** Several, of which the first one leads. */
  const startAll = async (count: number, options: Partial<TestPresenceOptions> = {}): Promise<TestPresence[]> => {
    const started: TestPresence[] = []
    for (let index = 0; index < count; index++) started.push(await start(options))
    await started[0]?.lead()
    return started
  }
  const news = (): string[] =>
    told.map(({ event, device, filter, count }) => `${event === 'join' ? '+' : '-'}${device} ${filter} ${count}`)
  /** Resolves once a change that is made now has been published, and so all changes before it. */
  const published = async (by: TestPresence): Promise<void> => {
    const name = `end-${++ends}`
    by.enter(name, ['end'])
    await eventually(() => told.some(({ device }) => device === name))
    for (let at = told.length - 1; at >= 0; at--) if (told[at]?.filter === 'end') told.splice(at, 1)
  }
  const allSee = (topic: string, listeners: string[]): Promise<void> =>
    eventually(() => gateways.every(gateway => `${gateway.at(topic)}` === `${listeners}`))

  beforeEach(async () => {
    redis = await startRedis()
    told = []
  })
  afterEach(async () => {
    await Promise.all(gateways.splice(0).map(gateway => gateway.kill()))
    await redis.stop()
  })

  it('is the same at all of them, and each join and leave is published once', async () => {
    const [a, b, c] = (await startAll(3, { grace: 50 })) as [TestPresence, TestPresence, TestPresence]
    const first = a.enter('a', ['x', 'y/+'])
    await allSee('x', ['a x 1'])
    const second = b.enter('b', ['x'], 'bob')
    await allSee('x', ['a x 1', 'b x 1'])
    expect(c.presence.at('y/1', 9)).toEqual(a.presence.at('y/1', 9))
    expect(c.presence.at('x', 9).listeners[1]).toMatchObject({ user: 'bob', transport: 'sse' })
    expect([...b.presence.counts(9).topics]).toEqual([
      ['x', 2],
      ['y/+', 1],
    ])
    expect(b.presence.size).toBe(2)
    first.remove(['y/+'])
    await eventually(() => told.length === 4)
    second.leave()
    await allSee('x', ['a x 1'])
    first.leave()
    await allSee('x', [])
    await published(c)
    expect(news()).toEqual(['+a x 1', '+a y/+ 1', '+b x 2', '-a y/+ 0', '-b x 1', '-a x 0'])
  })

  it('has a device that is connected to two of them once', async () => {
    const [a, b] = (await startAll(2, { grace: 20 })) as [TestPresence, TestPresence]
    const first = a.enter('d', ['x'])
    await allSee('x', ['d x 1'])
    const second = b.enter('d', ['x'])
    await allSee('x', ['d x 2'])
    expect(b.presence.at('x', 9)).toEqual(a.presence.at('x', 9))
    first.leave()
    await allSee('x', ['d x 1'])
    second.leave()
    await allSee('x', [])
    await published(a)
    expect(news()).toEqual(['+d x 1', '-d x 0'])
  })

  it('neither joins nor leaves who moves from one to another within the grace time', async () => {
    const [a, b] = (await startAll(2)) as [TestPresence, TestPresence]
    const first = a.enter('d', ['x'])
    await allSee('x', ['d x 1'])
    const [{ since } = { since: 0 }] = b.presence.at('x', 1).listeners
    await eventually(() => Date.now() > since)
    first.leave()
    const second = b.enter('d', ['x'])
    await eventually(async () => (await redis.client.hlen(`mqway:presence:of:${a.maps.id}`)) === 1)
    expect((await start()).presence.at('x', 1).listeners).toMatchObject([{ since, connections: 1 }])
    // The grace time at the first one is over.
    second.remove(['x'])
    await allSee('x', [])
    second.add(['x'])
    await published(b)
    expect(news()).toEqual(['+d x 1', '-d x 0', '+d x 1'])
  })

  it('neither joins nor leaves who has moved while a gateway has missed changes', async () => {
    const changes: PresenceChange[] = []
    const messages = { add: (change: PresenceChange) => changes.push(change), reached: () => {}, marked: () => {} }
    const presence = new SharedPresence({ grace: 0, messages, slicer: new TimeSlicer() })
    const listener = JSON.stringify(['sse', 'd', null, 'account', 1, 2, 1])
    const entries = new Map(Object.entries({ '1': listener, '1 x': '1' }))
    await presence.onLoaded(
      new Map([
        ['a', entries],
        ['b', new Map()],
      ]),
      1,
    )
    await presence.onLoaded(
      new Map([
        ['a', new Map()],
        ['b', entries],
      ]),
      2,
    )
    expect(changes).toMatchObject([{ event: 'join', device: 'd' }])
    expect(presence.at('x', 9).count).toBe(1)
    await presence.onLoaded(
      new Map([
        ['a', new Map()],
        ['b', new Map()],
      ]),
      3,
    )
    expect(changes.slice(1)).toMatchObject([{ event: 'leave', device: 'd' }])
    presence.close()
  })

  it('loses the listeners of one that is killed at the end of its lease, each once', async () => {
    const [a, b, c] = (await startAll(3)) as [TestPresence, TestPresence, TestPresence]
    c.enter('moves', ['x'])
    c.enter('gone', ['x', 'y'])
    await allSee(
      'x',
      ['gone x,y 1', 'moves x 1'].map(line => line.replace(',y', '')),
    )
    await c.kill()
    gateways.pop()
    a.enter('moves', ['x'])
    await allSee('x', ['moves x 1'])
    await published(b)
    expect(news().sort()).toEqual(['+gone x 2', '+gone y 1', '+moves x 1', '-gone x 1', '-gone y 0'])
    expect(await redis.client.keys('mqway:presence:of:*')).toHaveLength(2)
    expect(await redis.client.scard('mqway:presence:gateways')).toBe(2)
  })

  it('keeps the listeners of one that ends for the grace time', async () => {
    const [a, b] = (await startAll(2, { grace: 700 })) as [TestPresence, TestPresence]
    const handles = [b.enter('moves', ['x']), b.enter('gone', ['x'])]
    await allSee('x', ['gone x 1', 'moves x 1'])
    for (const handle of handles) handle.leave()
    await b.close()
    gateways.pop()
    expect(a.presence.at('x', 9).count).toBe(2)
    a.enter('moves', ['x'])
    await allSee('x', ['moves x 1'])
    await published(a)
    expect(news()).toEqual(['+moves x 1', '+gone x 2', '-gone x 1'])
  })

  it('is published on by another one after the one that led has ended, and nothing twice', async () => {
    const told = { a: [] as PresenceChange[], b: [] as PresenceChange[] }
    const [a, b, c] = [await start({ told: told.a }), await start({ told: told.b }), await start()]
    await a.lead()
    const enter = (from: number) => {
      for (let index = from; index < from + 500; index++) c.enter(`d${index}`, ['x'])
    }
    enter(0)
    await eventually(() => told.a.length > 0)
    enter(500)
    await a.close()
    enter(1000)
    await b.lead()
    await eventually(() => told.a.length + told.b.length >= 1500)
    expect([...told.a, ...told.b].map(({ device, count }) => `${device} ${count}`)).toEqual(
      Array.from({ length: 1500 }, (_, index) => `d${index} ${index + 1}`),
    )
  })

  it('is published on from the last mark of the one that led, if that one is killed', async () => {
    const told = { a: [] as PresenceChange[], b: [] as PresenceChange[] }
    let isSent = true
    // After the first batch, it publishes and does not come to the mark.
    const drained = (): Promise<void> => (isSent ? Promise.resolve() : new Promise(() => {}))
    const [a, b] = [await start({ told: told.a, drained }), await start({ told: told.b })]
    await a.lead()
    b.enter('first', ['x'])
    await eventually(async () => (await redis.client.xlen('mqway:presence')) === 5)
    isSent = false
    for (let index = 0; index < 10; index++) b.enter(`d${index}`, ['x'])
    await eventually(() => told.a.length === 11)
    await b.lead()
    await eventually(() => told.b.length === 10)
    expect(told.b).toEqual(told.a.slice(1).map(change => ({ ...change, time: expect.any(Number) })))
  })

  it('is not published by one whose lease has ended while it was stopped', async () => {
    const before: PresenceChange[] = []
    const [a, b] = [await start({ told: before, isHeld: () => false }), await start()]
    await a.lead()
    b.enter('d', ['x'])
    await allSee('x', ['d x 1'])
    await b.lead()
    await published(a)
    expect([before, news()]).toEqual([[], ['+d x 1']])
  })

  it('is the same after Redis has lost everything, and nobody seems to leave', async () => {
    const [a, b] = (await startAll(2)) as [TestPresence, TestPresence]
    a.enter('a', ['x'])
    b.enter('b', ['x'])
    await allSee('x', ['a x 1', 'b x 1'])
    await redis.client.flushall()
    await a.lead()
    const late = b.enter('c', ['x'])
    await allSee('x', ['a x 1', 'b x 1', 'c x 1'])
    // The names of before are no longer there.
    await eventually(() => a.maps.size === 2 && b.maps.size === 2)
    expect((await start()).at('x')).toEqual(['a x 1', 'b x 1', 'c x 1'])
    late.remove(['x'])
    await allSee('x', ['a x 1', 'b x 1'])
    await published(a)
    expect(news()).toEqual(['+a x 1', '+b x 2', '+c x 3', '-c x 2'])
  })

  it('stays as it was while Redis is away, and goes on when it is back', async () => {
    const [a, b] = (await startAll(2)) as [TestPresence, TestPresence]
    a.enter('a', ['x'])
    b.enter('b', ['x'])
    await allSee('x', ['a x 1', 'b x 1'])
    await redis.kill()
    const away = performance.now()
    a.enter('c', ['x'])
    // Longer than a lease.
    await eventually(() => performance.now() - away > 600)
    await allSee('x', ['a x 1', 'b x 1'])
    expect(a.presence.devicesAt('x', 9)).toEqual(['a', 'c', 'b'])
    await redis.start()
    await a.lead()
    await allSee('x', ['a x 1', 'b x 1', 'c x 1'])
    await eventually(() => a.maps.size === 2 && b.maps.size === 2)
    await published(b)
    expect(news()).toEqual(['+a x 1', '+b x 2', '+c x 3'])
  })

  it('is read again by one that has missed more than Redis keeps', async () => {
    const [a, b] = (await startAll(2)) as [TestPresence, TestPresence]
    a.enter('a', ['x'])
    await allSee('x', ['a x 1'])
    await redis.client.xtrim('mqway:presence', 'MAXLEN', 0)
    await redis.client.incr('mqway:presence:head')
    b.enter('b', ['x'])
    await allSee('x', ['a x 1', 'b x 1'])
    await published(a)
    expect(news()).toEqual(['+a x 1', '+b x 2'])
  })

  it('is what the listeners of all make it, whatever they do and whatever fails', async () => {
    const seed = Date.now()
    const { random, pick } = makeRandom(seed)
    const chance = (percent: number) => random(100) < percent
    const all = await startAll(3, { grace: 0, lease: 1000 })
    const open: { handle: PresenceHandle; device: string; filters: Set<string> }[] = []
    const faults = [
      () => redis.client.flushall().then(() => all[0]?.lead()),
      () => redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'),
      () => redis.client.xtrim('mqway:presence', 'MAXLEN', 0),
    ]
    for (let step = 0; step < 200; step++) {
      const kind = random(100)
      const filters = ['x', 'y', 'z'].filter(() => chance(50))
      if (kind < 40 || open.length === 0) {
        const device = pick(['p', 'q', 'r', 's'])
        open.push({ handle: pick(all).enter(device, filters), device, filters: new Set(filters) })
      } else if (kind < 65) {
        const each = pick(open)
        each.handle.change(filters)
        each.filters = new Set(filters)
      } else if (kind < 94) open.splice(open.indexOf(pick(open)), 1)[0]?.handle.leave()
      else await pick(faults)()
      if (chance(20)) await published(pick(all))
    }
    for (const filter of ['x', 'y', 'z']) {
      const devices = [...new Set(open.filter(each => each.filters.has(filter)).map(({ device }) => device))].sort()
      const at = (gateway: TestPresence) =>
        gateway.presence
          .at(filter, 99)
          .listeners.map(({ device }) => device)
          .toSorted()
      await eventually(() => all.every(gateway => `${at(gateway)}` === `${devices}`))
      await eventually(() => {
        const changes = told.filter(change => change.filter === filter)
        return (changes.at(-1)?.count ?? 0) === devices.length
      })
      // Each one joins and leaves in turn, and every count is the one before and this change.
      let count = 0
      const present = new Set<string>()
      for (const change of told.filter(change => change.filter === filter)) {
        const isJoin = change.event === 'join'
        expect(present.has(change.device), `seed ${seed}`).toBe(!isJoin)
        if (isJoin) present.add(change.device)
        else present.delete(change.device)
        count += isJoin ? 1 : -1
        expect(change.count, `seed ${seed}`).toBe(count)
      }
      expect([...present].sort()).toEqual(devices)
    }
  })
})
