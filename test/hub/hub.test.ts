import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { type Hub, type HubOptions, openHub, type SubscribeOptions } from '../../src/hub/hub.js'
import { formatId } from '../../src/journal/event.js'
import type { Journal, JournalBounds } from '../../src/journal/journal.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { message, wide } from '../contracts/journal.js'
import { eventually, settled } from '../helpers/wait.js'
import { lineEncoder, TestSink } from './rig.js'

const log = createLog({ level: 'silent', format: 'json' })
const roomy: HubOptions['bounds'] = {
  maxQueuedEvents: 1000,
  maxQueuedBytes: 2 ** 20,
  recent: { maxEvents: 100, maxBytes: 2 ** 20 },
}

describe.each(['memory', 'level'] as const)('the hub on a journal in %s', kind => {
  let directory: string
  let journal: Journal
  let hub: Hub
  const { encode, calls } = lineEncoder()

  const start = async (bounds: Partial<JournalBounds> = {}, hubBounds: Partial<HubOptions['bounds']> = {}) => {
    hub?.close()
    await journal?.close()
    const options = { bounds: { ...wide, ...bounds }, log }
    journal = kind === 'memory' ? new MemoryJournal(options) : await openLevelJournal({ ...options, directory })
    hub = await openHub({ journal, bounds: { ...roomy, ...hubBounds }, log })
  }
  const subscribe = (filters: string[], more: Partial<SubscribeOptions> = {}) => {
    const sink = new TestSink()
    return { sink, subscription: hub.subscribe({ filters, encode, sink, ...more }) }
  }
  const live = async (filters: string[], more: Partial<SubscribeOptions> = {}) => {
    const subscribed = subscribe(filters, more)
    await eventually(() => subscribed.sink.isLive)
    return subscribed
  }
  const publish = (topic: string, payload = '', retain = false) => journal.append(message(topic, payload, { retain }))
  const publishMany = (count: number, topic = 't', from = 0) =>
    Promise.all(Array.from({ length: count }, (_, index) => publish(topic, String(from + index))))
  const at = (sequence: number): string => formatId(journal.epoch, sequence)
  const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => String(from + index))

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-hub-'))
    await start()
  })
  afterEach(async () => {
    vi.useRealTimers()
    hub.close()
    await journal.close()
    await rm(directory, { recursive: true })
  })

  it('gives an event to everybody who wants its topic, once', async () => {
    const a = await live(['a/+', 'a/#', 'a/b'])
    const b = await live(['b'])
    await publish('a/b', 'one')
    await publish('c', 'two')
    await publish('b', 'three')
    await eventually(() => b.sink.writes.length > 0)
    expect(a.sink.lines()).toEqual([{ id: at(1), topic: 'a/b', payload: 'one', retained: false }])
    expect(b.sink.payloads()).toEqual(['three'])
    expect(hub.counters).toMatchObject({ subscribers: 2, catchingUp: 0, delivered: 2 })
  })

  it('sends no expired event: neither live nor from the cache or the journal, and without a gap', async () => {
    const expired = (topic: string) => journal.append(message(topic, 'late', { expires: Date.now() }))
    const { sink } = await live(['a'])
    const { id } = await publish('a', 'before')
    await expired('a')
    await publish('a', 'after')
    await eventually(() => sink.payloads().length === 2)
    expect(sink.payloads()).toEqual(['before', 'after'])
    const cached = await live(['a'], { cursor: id })
    expect(cached.sink.payloads()).toEqual(['after'])
    await publishMany(150)
    const read = await live(['a'], { cursor: id })
    expect(read.sink.payloads()).toEqual(['after'])
    expect(hub.counters.gaps).toBe(0)
  })

  it('has expired events in its cache after a start, as any others', async () => {
    if (kind === 'memory') return
    await publishMany(3)
    await journal.append(message('t', 'late', { expires: Date.now() }))
    await publishMany(2, 't', 3)
    await start()
    const reads = vi.spyOn(journal, 'read')
    const { sink } = await live(['t'], { cursor: at(1) })
    expect(sink.payloads()).toEqual(['1', '2', '3', '4'])
    expect(reads).not.toHaveBeenCalled()
  })

  it('has the journal write without delay what somebody wants, or may want, and nothing else', async () => {
    const { subscription } = await live(['a/+'])
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const atLeisure = (topic: string) => journal.append(message(topic), 'at leisure')
    const unwanted = atLeisure('b')
    await settled(() => journal.head)
    expect(journal.head).toBe(0)
    await Promise.all([unwanted, atLeisure('a/1')])
    subscription.close()
    subscribe(['c'])
    await atLeisure('d')
    expect(journal.head).toBe(3)
  })

  it('encodes an event once, whoever wants it, and never for nobody', async () => {
    const sinks = await Promise.all(Array.from({ length: 50 }, () => live(['t'])))
    const other = lineEncoder()
    const different = await live(['t'], { encode: other.encode })
    const before = calls()
    await publish('t', 'one')
    await publish('elsewhere', 'two')
    await eventually(() => different.sink.writes.length > 0)
    expect([calls() - before, other.calls()]).toEqual([1, 1])
    const [first] = sinks[0]?.sink.writes ?? []
    for (const { sink } of sinks) expect(sink.writes[0]).toBe(first)
  })

  it('lets others have a turn while somebody with a thousand filters reads on', async () => {
    await start({}, { recent: { maxEvents: 10_000, maxBytes: 2 ** 28 } })
    for (let from = 0; from < 6000; from += 1000) {
      await Promise.all(Array.from({ length: 1000 }, (_, index) => publish(`some/where/${from + index}/x`)))
    }
    const filters = Array.from({ length: 1000 }, (_, index) => `+/+/+/y${index}`)
    let [turns, watches] = [0, true]
    const look = (): void => {
      turns++
      if (watches) setImmediate(look)
    }
    setImmediate(look)
    await Promise.all([0, 1500, 3000, 4500].map(from => live(filters, { cursor: at(from) })))
    watches = false
    // It took three turns when only events were counted, and not what each is compared with.
    expect(turns).toBeGreaterThan(40)
  })

  it('makes one write of what comes in one turn, and the same bytes for those who get the same', async () => {
    const sinks = await Promise.all(Array.from({ length: 10 }, () => live(['t', 'u'])))
    const one = await live(['t'])
    const messages = [publish('t', '1'), publish('u', '2'), publish('t', '3')]
    await Promise.all(messages)
    await eventually(() => one.sink.writes.length > 0)
    for (const { sink } of sinks) {
      expect(sink.writes).toHaveLength(1)
      expect(sink.writes[0]).toBe(sinks[0]?.sink.writes[0])
      expect(sink.payloads()).toEqual(['1', '2', '3'])
    }
    expect(one.sink.writes).toHaveLength(1)
    expect(one.sink.payloads()).toEqual(['1', '3'])
  })

  it('gives a new subscriber what is retained, once, and then what comes', async () => {
    await publish('a/1', 'old', true)
    await publish('a/1', 'state', true)
    await publish('a/2', 'news')
    await publish('b/1', 'other', true)
    const { sink, subscription } = subscribe(['a/+', 'a/1'])
    expect(subscription.cursor).toBeUndefined()
    await eventually(() => sink.isLive)
    expect(sink.lines()).toEqual([{ id: at(2), topic: 'a/1', payload: 'state', retained: true }])
    expect(subscription.cursor).toBe(at(4))
    await publish('a/1', 'new state', true)
    await eventually(() => sink.lines().length === 2)
    expect(sink.lines()[1]).toMatchObject({ payload: 'new state', retained: false })
  })

  it('replays what came after a cursor, from memory and from the journal, and nothing that is retained', async () => {
    await publish('t', 'retained', true)
    await publishMany(2000)
    for (const [cursor, expected] of [
      [at(1), numbers(0, 2000)],
      [at(500), numbers(499, 2000)],
      [at(1950), numbers(1949, 2000)],
      [at(2001), []],
      [at(0), ['retained', ...numbers(0, 2000)]],
    ] as const) {
      const { sink, subscription } = await live(['t'], { cursor })
      expect(sink.payloads()).toEqual(expected)
      expect(subscription.cursor).toBe(at(2001))
    }
    expect(hub.counters).toMatchObject({ gaps: 0, retained: 0, replayed: 2000 + 1501 + 51 + 2001 })
  })

  it('gives a new subscriber the newest events that it asks for, and what is retained from before them', async () => {
    await publish('t/state', 'retained', true)
    await publishMany(1500, 't/x')
    await publish('t/late', 'late', true)
    const { sink } = await live(['t/+'], { last: 700 })
    expect(sink.lines()[0]).toMatchObject({ payload: 'retained', retained: true })
    expect(sink.payloads().slice(1)).toEqual([...numbers(801, 1500), 'late'])
    expect((await live(['t/+'], { last: 0 })).sink.payloads().sort()).toEqual(['late', 'retained'])
  })

  it('knows how far a subscriber is, also where others have what it does not want', async () => {
    const { sink, subscription } = await live(['rare'])
    await publishMany(10)
    expect(subscription.cursor).toBe(at(10))
    sink.hasRoom = () => false
    await publish('rare', 'one')
    await eventually(() => sink.writes.length === 1)
    await publishMany(5)
    expect(subscription.cursor).toBe(at(16))
    await publish('rare', 'waits')
    await publishMany(5)
    expect(subscription.cursor).toBe(at(16))
    sink.drain()
    expect(subscription.cursor).toBe(at(22))
    expect(sink.payloads()).toEqual(['one', 'waits'])
    subscription.close()
    await publish('rare', 'later')
    expect(subscription.cursor).toBe(at(22))
    expect(sink.payloads()).toEqual(['one', 'waits'])
    expect(hub.counters.subscribers).toBe(0)
  })

  it.each([
    ['events', { maxQueuedEvents: 10, maxQueuedBytes: 2 ** 20 }],
    ['bytes', { maxQueuedEvents: 1000, maxQueuedBytes: 800 }],
  ])('cuts a slow subscriber off when too many %s wait, and nobody else; it loses nothing', async (_, bounds) => {
    await start({}, bounds)
    const slow = await live(['t'])
    const quick = await live(['t'])
    slow.sink.hasRoom = () => false
    await publish('t', '0')
    await publishMany(100, 't', 1)
    await eventually(() => quick.sink.lines().length === 101)
    expect(slow.sink.closed).toEqual({ reason: 'too-slow', cursor: at(1) })
    expect(slow.sink.payloads()).toEqual(['0'])
    expect(hub.counters).toMatchObject({ subscribers: 1, cutOff: 1 })
    expect(hub.counters.dropped).toBeGreaterThan(5)
    const again = await live(['t'], { cursor: slow.sink.closed?.cursor ?? '' })
    expect(again.sink.payloads()).toEqual(numbers(1, 101))
    expect(quick.sink.payloads()).toEqual(numbers(0, 101))
  })

  it('does not cut off who has room, however much comes in one turn', async () => {
    await start({}, { maxQueuedEvents: 10, maxQueuedBytes: 500 })
    const { sink } = await live(['t'])
    await publishMany(1000)
    await publish('t', 'x'.repeat(2000))
    await eventually(() => sink.lines().length === 1001)
    expect(sink.closed).toBeUndefined()
  })

  it('tells of a gap where the cursor is gone, with what is still retained of it, and goes on behind it', async () => {
    await start({ maxEvents: 50 })
    await publish('t', 'first', true)
    await publish('s', 'missed state', true)
    await publishMany(200)
    await journal.trim()
    const { sink, subscription } = subscribe(['t', 's'], { cursor: at(1) })
    await eventually(() => sink.isLive)
    expect(sink.gaps).toEqual([{ reason: 'evicted', cursor: at(1), resumes: at(152) }])
    expect(sink.payloads()).toEqual(['missed state', ...numbers(150, 200)])
    expect(subscription.cursor).toBe(at(202))
    expect(hub.counters.gaps).toBe(1)
  })

  it.each([
    ['other-epoch', `${'0'.repeat(15)}-3`],
    ['unknown', 'last tuesday'],
    ['unknown', ''],
  ] as const)('tells of a gap (%s) for the cursor %j, and gives all there is', async (reason, cursor) => {
    await publish('t', 'one', true)
    const { sink } = await live(['t'], { cursor })
    expect(sink.gaps).toEqual([{ reason, cursor, resumes: at(0) }])
    expect(sink.payloads()).toEqual(['one'])
  })

  it('tells of a gap where some topics with bounds of their own are gone, then what is left of the others', async () => {
    await start({ rules: [{ filters: ['noisy/#'], maxEvents: 2, maxBytes: wide.maxBytes, maxAge: wide.maxAge }] })
    await publish('quiet', 'one')
    await publish('noisy/x', 'state', true)
    await publishMany(9, 'noisy/y')
    await publish('quiet', 'two')
    await journal.trim()
    const { sink } = await live(['#'], { cursor: at(0) })
    expect(sink.gaps).toEqual([{ reason: 'evicted', cursor: at(0), resumes: at(9) }])
    expect(sink.payloads()).toEqual(['state', 'one', '7', '8', 'two'])
    const { sink: quiet } = await live(['quiet'], { cursor: at(0) })
    expect([quiet.gaps, quiet.payloads()]).toEqual([[], ['one', 'two']])
  })

  it('tells of a gap in the middle of a replay that is overtaken by the bounds of the journal', async () => {
    await start({ maxEvents: 2000 })
    await publishMany(2000)
    const { sink } = subscribe(['t'], { cursor: at(0) })
    sink.hasRoom = () => false
    await eventually(() => sink.writes.length === 1)
    const before = sink.lines().length
    await publishMany(1900, 't', 2000)
    await journal.trim()
    sink.hasRoom = () => true
    sink.drain()
    await eventually(() => sink.isLive)
    expect(sink.gaps).toEqual([{ reason: 'evicted', cursor: at(before), resumes: at(1900) }])
    expect(sink.payloads()).toEqual([...numbers(0, before), ...numbers(1900, 3900)])
  })

  it('ends a subscription that has as much as it wanted, live or replayed, at its last event', async () => {
    const first = await live(['t'], { limit: 3 })
    await publishMany(5)
    await eventually(() => first.sink.closed !== undefined)
    expect(first.sink.closed).toEqual({ reason: 'complete', cursor: at(3) })
    expect(first.sink.payloads()).toEqual(numbers(0, 3))
    const second = subscribe(['t'], { limit: 1, cursor: at(3) })
    await eventually(() => second.sink.closed !== undefined)
    expect(second.sink.closed).toEqual({ reason: 'complete', cursor: at(4) })
    await publishMany(2000, 't', 5)
    const third = subscribe(['t'], { limit: 1500, cursor: at(4) })
    await eventually(() => third.sink.closed !== undefined)
    expect(third.sink.closed).toEqual({ reason: 'complete', cursor: at(1504) })
    expect(third.sink.payloads()).toEqual(numbers(4, 1504))
    expect(hub.counters.subscribers).toBe(0)
  })

  it('lets a sink end its own subscription while it is written to', async () => {
    const { sink, subscription } = await live(['t'])
    sink.onWrite = () => subscription.close()
    const other = await live(['t'])
    await publish('t', 'one')
    await publish('t', 'two')
    await eventually(() => other.sink.lines().length === 2)
    expect(sink.payloads()).toEqual(['one'])
    expect(subscription.cursor).toBe(at(1))
    expect(sink.closed).toBeUndefined()
  })

  it('has many catch up side by side: who wants little does not wait for who wants everything', async () => {
    await publishMany(20_000)
    const large = subscribe(['t'], { cursor: at(0) })
    await eventually(() => large.sink.writes.length > 0)
    const small = subscribe(['t'], { cursor: at(19_000) })
    await eventually(() => small.sink.isLive)
    expect(large.sink.isLive).toBe(false)
    await eventually(() => large.sink.isLive)
    expect(large.sink.payloads()).toEqual(numbers(0, 20_000))
    expect(small.sink.payloads()).toEqual(numbers(19_000, 20_000))
  })

  it('does not read on for a subscriber that has no room', async () => {
    await publishMany(5000)
    const { sink, subscription } = subscribe(['t'], { cursor: at(0) })
    sink.hasRoom = () => false
    await eventually(() => sink.writes.length === 1)
    const { sink: other } = await live(['t'], { cursor: at(1000) })
    expect(other.lines()).toHaveLength(4000)
    expect(sink.writes).toHaveLength(1)
    expect(sink.lines().length).toBeLessThan(1000)
    expect(subscription.cursor).toBe(at(sink.lines().length))
  })

  it('goes on after a restart of everything, where the journal is kept', async () => {
    await publishMany(300)
    const { epoch } = journal
    await start()
    const { sink } = await live(['t'], { cursor: formatId(epoch, 250) })
    if (kind === 'memory') expect(sink.gaps).toMatchObject([{ reason: 'other-epoch' }])
    else expect([sink.gaps, sink.payloads()]).toEqual([[], numbers(250, 300)])
  })

  it('lets go of everybody when it closes, with where they are, after what waits', async () => {
    const one = await live(['t'])
    const two = subscribe(['t'], { cursor: at(0) })
    await publish('t', 'one')
    hub.close()
    expect(one.sink.payloads()).toEqual(['one'])
    expect(one.sink.closed).toEqual({ reason: 'shutting-down', cursor: at(1) })
    expect(two.sink.closed?.reason).toBe('shutting-down')
    const late = subscribe(['t'])
    await eventually(() => late.sink.closed !== undefined)
    expect(late.sink.closed).toEqual({ reason: 'shutting-down', cursor: undefined })
  })

  it.runIf(kind === 'level')(
    'ends those who catch up when the journal cannot be read, with where they are',
    async () => {
      await publishMany(1000)
      const { sink } = subscribe(['t'], { cursor: at(10) })
      sink.hasRoom = () => false
      await eventually(() => sink.writes.length === 1)
      await journal.close()
      sink.drain()
      await eventually(() => sink.closed !== undefined)
      expect(sink.closed).toEqual({ reason: 'journal-unavailable', cursor: at(10 + sink.lines().length) })
    },
  )

  it('refuses no filter at all, and filters that are too deep', () => {
    expect(() => subscribe([])).toThrow(RangeError)
    expect(() => subscribe(['a/'.repeat(101)])).toThrow(RangeError)
  })
})
