import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import type { EventSink, Gap } from '../../src/hub/event-sink.js'
import { type Hub, openHub, type SubscribeOptions, type Subscription } from '../../src/hub/hub.js'
import { formatId, gapMarker, isGapMarker } from '../../src/journal/event.js'
import type { Journal } from '../../src/journal/journal.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { message, readAll, wide } from '../contracts/journal.js'
import { eventually } from '../helpers/wait.js'
import { lineEncoder } from './rig.js'

const log = createLog({ level: 'silent', format: 'json' })
const { encode } = lineEncoder()

/** Keeps payloads and gaps in their order. */
class Sequence implements EventSink {
  readonly entries: (string | Gap)[] = []
  isLive = false
  hasRoom = true
  #resume: (() => void) | undefined

  write(data: Buffer): boolean {
    for (const line of data.toString().trimEnd().split('\n')) this.entries.push(JSON.parse(line).payload)
    return this.hasRoom
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  drain(): void {
    this.hasRoom = true
    this.#resume?.()
  }

  gap(gap: Gap): void {
    this.entries.push(gap)
  }

  live(): void {
    this.isLive = true
  }

  close(): void {}
}

describe.each(['memory', 'level'] as const)('a hole in a journal in %s', kind => {
  let directory: string
  let journal: Journal
  let hub: Hub

  const open = async (): Promise<void> => {
    const options = { bounds: wide, log }
    journal = kind === 'memory' ? new MemoryJournal(options) : await openLevelJournal({ ...options, directory })
  }
  const subscribe = async (filters: string[], more: Partial<SubscribeOptions> = {}) => {
    const sink = new Sequence()
    const subscription: Subscription = hub.subscribe({ filters, encode, sink, ...more })
    await eventually(() => sink.isLive)
    return { sink, subscription }
  }
  const publish = (payload: string, topic = 't') => journal.append(message(topic, payload))
  const many = (count: number) => Promise.all(Array.from({ length: count }, (_, index) => publish(String(index))))
  const at = (sequence: number): string => formatId(journal.epoch, sequence)

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-holes-'))
    await open()
    const recent = { maxEvents: 100, maxBytes: 2 ** 20 }
    hub = await openHub({ journal, bounds: { maxQueuedEvents: 1000, maxQueuedBytes: 2 ** 20, recent }, log })
  })
  afterEach(async () => {
    hub.close()
    await journal.close()
    await rm(directory, { recursive: true })
  })

  it('is told as a gap, in its place, to everybody who listens', async () => {
    const [one, other, all] = [await subscribe(['t']), await subscribe(['elsewhere']), await subscribe(['#'])]
    await Promise.all([publish('before'), journal.append(gapMarker), publish('after')])
    const gap = { reason: 'missed', cursor: at(1), resumes: at(2) }
    for (const { sink } of [one, all]) {
      await eventually(() => sink.entries.length === 3)
      expect(sink.entries).toEqual(['before', gap, 'after'])
    }
    await eventually(() => other.subscription.isLive)
    expect(other.sink.entries).toEqual([gap])
    await publish('later')
    await eventually(() => one.sink.entries.at(-1) === 'later')
    expect([one.subscription.cursor, other.subscription.cursor, hub.counters.gaps]).toEqual([at(4), at(4), 3])
  })

  it('is told to somebody who does not read when it comes, when they come to it', async () => {
    const { sink } = await subscribe(['t'])
    sink.hasRoom = false
    await publish('before')
    await eventually(() => sink.entries.length === 1)
    await publish('waits')
    await journal.append(gapMarker)
    await publish('after')
    sink.drain()
    await eventually(() => sink.entries.length === 4)
    const gap = { reason: 'missed', cursor: at(2), resumes: at(3) }
    expect(sink.entries).toEqual(['before', 'waits', gap, 'after'])
  })

  it('is told to whoever comes from before it, and to nobody who comes from behind it', async () => {
    await many(1500)
    await journal.append(gapMarker)
    await many(1500)
    const numbers = Array.from({ length: 1500 }, (_, index) => String(index))
    const gapFrom = (cursor: number) => ({ reason: 'missed', cursor: at(cursor), resumes: at(1501) })
    const before = await subscribe(['t'], { cursor: at(0) })
    await eventually(() => before.sink.entries.length === 3001)
    expect(before.sink.entries).toEqual([...numbers, gapFrom(1500), ...numbers])
    const elsewhere = await subscribe(['elsewhere'], { cursor: at(10) })
    expect(elsewhere.sink.entries).toMatchObject([{ reason: 'missed', resumes: at(1501) }])
    const behind = await subscribe(['t'], { cursor: at(1501) })
    await eventually(() => behind.sink.entries.length === 1500)
    expect(behind.sink.entries).toEqual(numbers)
    const fresh = await subscribe(['t'])
    expect(fresh.sink.entries).toEqual([])
  })

  it('is told of filters that join from before it', async () => {
    await publish('before', 'joins')
    await journal.append(gapMarker)
    await publish('after', 'joins')
    const { sink, subscription } = await subscribe(['t'])
    subscription.change({ add: ['joins'], cursor: at(0) })
    await eventually(() => sink.entries.length === 3)
    expect(sink.entries).toEqual([
      'before',
      { reason: 'missed', cursor: at(1), resumes: at(2), filters: ['joins'] },
      'after',
    ])
  })

  it('is there after a restart', async () => {
    await journal.append(gapMarker)
    await many(1200)
    if (kind === 'level') {
      await journal.close()
      await open()
    }
    expect((await readAll(journal, ['elsewhere'], 0)).map(isGapMarker)).toEqual([true])
  })
})

describe('a cursor after the newest event of a shared journal, which another gateway gave', () => {
  let journal: Journal
  let hub: Hub

  const subscribe = async (sequence: number) => {
    const sink = new Sequence()
    const cursor = formatId(journal.epoch, sequence)
    const subscription: Subscription = hub.subscribe({ filters: ['t'], encode, sink, cursor })
    await eventually(() => sink.isLive)
    return { sink, subscription, cursor }
  }
  const publish = (payload: string) => journal.append(message('t', payload))

  beforeEach(async () => {
    journal = Object.assign(new MemoryJournal({ bounds: wide, log }), { isShared: true })
    for (const payload of ['1', '2']) await publish(payload)
    const recent = { maxEvents: 100, maxBytes: 2 ** 20 }
    hub = await openHub({ journal, bounds: { maxQueuedEvents: 1000, maxQueuedBytes: 2 ** 20, recent }, log })
  })
  afterEach(async () => {
    hub.close()
    await journal.close()
  })

  it('is kept until the events after it come, and no event before it comes again', async () => {
    const { sink, subscription, cursor } = await subscribe(4)
    const { sink: other } = await subscribe(2)
    expect(subscription.cursor).toBe(cursor)
    await publish('3')
    await eventually(() => other.entries.length === 1)
    expect(subscription.cursor).toBe(cursor)
    for (const payload of ['4', '5', '6']) await publish(payload)
    await eventually(() => sink.entries.length === 2)
    expect(sink.entries).toEqual(['5', '6'])
    expect(other.entries).toEqual(['3', '4', '5', '6'])
    expect(subscription.cursor).toBe(formatId(journal.epoch, 6))
  })

  it('is kept when its filters change', async () => {
    const { sink, subscription, cursor } = await subscribe(4)
    subscription.change({ add: ['u'] })
    await eventually(() => subscription.isLive)
    expect(subscription.cursor).toBe(cursor)
    for (const payload of ['3', '4', '5']) await publish(payload)
    await eventually(() => sink.entries.length > 0)
    expect(sink.entries).toEqual(['5'])
  })

  it('does not hide a gap, after which sequences continue before it', async () => {
    const { sink } = await subscribe(9)
    await Promise.all([publish('3'), journal.append(gapMarker), publish('after')])
    await eventually(() => sink.entries.includes('after'))
    expect(sink.entries).toMatchObject([{ reason: 'missed' }, 'after'])
  })
})
