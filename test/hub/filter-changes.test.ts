import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import type { EventSink, Gap } from '../../src/hub/event-sink.js'
import { type Hub, openHub, type Subscription } from '../../src/hub/hub.js'
import { type Event, formatId, parseId } from '../../src/journal/event.js'
import type { Journal, JournalBounds } from '../../src/journal/journal.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { topicPredicate } from '../../src/topics/match.js'
import { message, wide } from '../contracts/journal.js'
import { eventually } from '../helpers/wait.js'
import { type Line, lineEncoder } from './rig.js'

const log = createLog({ level: 'silent', format: 'json' })
const topics = ['a', 'a/b', 'a/c', 'b/c', '/b', 'rare', '$x/y', 'own']
const filters = ['#', 'a/#', '+/c', 'rare', '/b', '$x/#', '+', 'a/b', 'none']
// Nobody is cut off, however slow the machine is.
const bounds = { maxQueuedEvents: 100_000, maxQueuedBytes: 2 ** 24, recent: { maxEvents: 50, maxBytes: 5000 } }

/** Chance, repeatable as far as the order of what is awaited is. */
function chance(seed: number): (below: number) => number {
  let state = (seed % 2147483646) + 1
  return below => {
    state = (state * 48271) % 2147483647
    return state % below
  }
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

/** What a subscription was given, and when its filters became others. */
type Entry =
  | { readonly kind: 'event'; readonly line: Line; readonly sequence: number }
  | { readonly kind: 'filters'; readonly filters: readonly string[]; readonly at: number; readonly from?: number }
  | { readonly kind: 'gap'; readonly gap: Gap }
  | { readonly kind: 'live' }

/** A sink that keeps what happens in its order, and has room as the test says. */
class OrderedSink implements EventSink {
  readonly entries: Entry[] = []
  closed: string | undefined
  hasRoom: () => boolean = () => true
  #resume: (() => void) | undefined

  write(data: Buffer): boolean {
    if (this.closed || this.#resume) throw new Error('written to although there was no room')
    for (const text of data.toString().trimEnd().split('\n')) {
      const line: Line = JSON.parse(text)
      this.entries.push({ kind: 'event', line, sequence: parseId(line.id)?.sequence ?? 0 })
    }
    return this.hasRoom()
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  drain(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }

  gap(gap: Gap): void {
    this.entries.push({ kind: 'gap', gap })
  }

  live(): void {
    this.entries.push({ kind: 'live' })
  }

  close(reason: string): void {
    this.closed = reason
  }

  get isLive(): boolean {
    const kinds = this.entries.map(({ kind }) => kind)
    return kinds.lastIndexOf('live') > kinds.lastIndexOf('filters')
  }

  payloads(): string[] {
    return this.entries.flatMap(entry => (entry.kind === 'event' ? [entry.line.payload] : []))
  }
}

/** Somebody who subscribes and unsubscribes at any time, and reads when they like. */
class Changer {
  readonly sink = new OrderedSink()
  readonly subscription: Subscription
  /** What it will have, when all its changes are made. */
  readonly asked = new Set(['own'])
  /** For each change: what was in the journal when it was asked for. */
  waiting = 0
  readonly #random: (below: number) => number
  readonly start: number

  constructor(hub: Hub, random: (below: number) => number, head: number) {
    this.#random = random
    this.start = head
    const patience = random(5)
    this.sink.hasRoom = () => random(4) < patience
    const { encode } = lineEncoder()
    this.subscription = hub.subscribe({ filters: ['own'], encode, sink: this.sink })
  }

  change(cursorOf: (() => string) | undefined): void {
    const filter = filters[this.#random(filters.length)] ?? 'a'
    this.waiting++
    const cursor = cursorOf?.()
    const applied = (all: readonly string[]): void => {
      this.waiting--
      const at = parseId(this.subscription.cursor ?? '')?.sequence ?? Number.NaN
      const from = cursor === undefined ? undefined : parseId(cursor)?.sequence
      this.sink.entries.push({ kind: 'filters', filters: all, at, ...(from !== undefined && { from }) })
    }
    if (this.asked.has(filter) && this.#random(3) > 0) {
      this.asked.delete(filter)
      this.subscription.change({ remove: [filter], applied })
    } else {
      this.asked.add(filter)
      this.subscription.change({ add: [filter, 'own'], cursor, applied })
    }
  }
}

describe.each(['memory', 'level'] as const)('filters that change on a subscription of a hub, journal in %s', kind => {
  const play = async (seed: number, withCursors: boolean, journalBounds: Partial<JournalBounds> = {}) => {
    const random = chance(seed)
    const directory = await mkdtemp(join(tmpdir(), 'mqway-changes-'))
    const options = { bounds: { ...wide, ...journalBounds }, log }
    const journal: Journal =
      kind === 'memory' ? new MemoryJournal(options) : await openLevelJournal({ ...options, directory })
    const hub = await openHub({ journal, bounds, log })
    const events: Event[] = []
    const retained = new Set<number>()
    const pending = new Set<Promise<unknown>>()
    const publish = (): void => {
      const retain = random(6) === 0
      const topic = topics[random(topics.length)] ?? 'a'
      const appended = journal.append(message(topic, Buffer.alloc(1 + random(60), 'x'), { retain })).then(event => {
        events.push(event)
        if (retain) retained.add(event.sequence)
      })
      pending.add(appended)
      void appended.finally(() => pending.delete(appended))
    }
    for (let left = 200; left > 0; left--) publish()
    await Promise.all(pending)
    const changers = Array.from({ length: 6 }, () => new Changer(hub, random, events.length))
    for (let round = 0; round < 150; round++) {
      for (let left = random(12); left > 0; left--) publish()
      if (random(3) === 0) await Promise.race([...pending, turn()])
      for (const changer of changers) {
        if (random(5) === 0 && changer.waiting < 4) {
          const back = random(100)
          const cursorOf = (): string => formatId(journal.epoch, Math.max(0, journal.head - back))
          changer.change(withCursors && random(2) === 0 ? cursorOf : undefined)
        }
        if (random(3) > 0) changer.sink.drain()
      }
      await turn()
    }
    await Promise.all(pending)
    for (const { sink } of changers) {
      sink.hasRoom = () => true
      sink.drain()
    }
    const last = formatId(journal.epoch, journal.head)
    expect(changers.filter(({ sink }) => sink.closed !== undefined)).toEqual([])
    await eventually(() =>
      changers.every(({ sink, subscription, waiting }) => sink.isLive && waiting === 0 && subscription.cursor === last),
    )
    events.sort((a, b) => a.sequence - b.sequence)
    const { epoch } = journal
    const ends = changers.map(({ subscription }) => parseId(subscription.cursor ?? '')?.sequence ?? 0)
    const counters = { ...hub.counters }
    hub.close()
    await journal.close()
    await rm(directory, { recursive: true })
    return { events, retained, changers, ends, epoch, counters }
  }

  it('miss nothing and double nothing, in order, with what is retained of the new ones first', async () => {
    const seen = { changes: 0, live: 0, retained: 0 }
    await fc.assert(
      fc.asyncProperty(fc.nat(), async seed => {
        const { events, retained, changers, ends } = await play(seed, false)
        for (const [index, changer] of changers.entries()) {
          let held: readonly string[] = ['own']
          let from = changer.start
          /** What has to come before the filters change again. */
          let got: number[] = []
          let states: Entry[] = []
          let before: readonly string[] = []
          const settle = (through: number): void => {
            const wants = topicPredicate(held)
            const expected = events.filter(
              ({ sequence, topic }) => sequence > from && sequence <= through && wants(topic),
            )
            expect(got).toEqual(expected.map(({ sequence }) => sequence))
            const had = topicPredicate(before)
            const newest = new Map<string, number>()
            for (const { sequence, topic } of events) {
              if (sequence <= from && retained.has(sequence) && wants(topic) && !had(topic)) newest.set(topic, sequence)
            }
            const told = new Map(
              states.flatMap(entry => (entry.kind === 'event' ? [[entry.line.topic, entry.sequence]] : [])),
            )
            expect(told.size).toBe(states.length)
            for (const [topic, sequence] of told) expect(newest.get(topic)).toBe(sequence)
            for (const [topic, sequence] of newest) {
              if (told.has(topic)) continue
              // It may be that a newer state has taken its place meanwhile: that comes as an event.
              const newer = events.some(
                other => other.topic === topic && other.sequence > sequence && retained.has(other.sequence),
              )
              expect(newer, `the state of ${topic} is missing`).toBe(true)
            }
            seen.retained += told.size
          }
          for (const entry of changer.sink.entries) {
            if (entry.kind === 'live') seen.live++
            if (entry.kind === 'event' && entry.line.retained) {
              // Before all that has come since.
              expect(got).toEqual([])
              states.push(entry)
            } else if (entry.kind === 'event') got.push(entry.sequence)
            if (entry.kind !== 'filters') continue
            seen.changes++
            settle(entry.at)
            before = held.filter(filter => entry.filters.includes(filter))
            ;[held, from, got, states] = [entry.filters, entry.at, [], []]
          }
          settle(ends[index] ?? 0)
          expect([...held].sort()).toEqual([...changer.asked].sort())
        }
      }),
      { numRuns: 15 },
    )
    // The property is worth something only where all this happened.
    expect(seen.changes).toBeGreaterThan(500)
    expect(seen.live).toBeGreaterThan(200)
    expect(seen.retained).toBeGreaterThan(200)
  }, 60_000)

  it('get what they missed since their own cursor, and of other filters’ topics nothing again', async () => {
    let before = 0
    await fc.assert(
      fc.asyncProperty(fc.nat(), async seed => {
        const { events, changers, ends } = await play(seed, true)
        for (const [index, changer] of changers.entries()) {
          const { entries } = changer.sink
          let held: readonly string[] = ['own']
          let from = changer.start
          let given: readonly string[] = []
          let since: number | undefined
          let got: number[] = []
          const settle = (through: number): void => {
            const [wants, had] = [topicPredicate(held), topicPredicate(given)]
            const missed = events.filter(
              ({ sequence, topic }) =>
                since !== undefined && sequence > since && sequence <= from && wants(topic) && !had(topic),
            )
            const news = events.filter(({ sequence, topic }) => sequence > from && sequence <= through && wants(topic))
            before += missed.length
            expect(got).toEqual([...missed, ...news].map(({ sequence }) => sequence))
          }
          for (const entry of entries) {
            if (entry.kind === 'event' && !entry.line.retained) got.push(entry.sequence)
            if (entry.kind !== 'filters') continue
            settle(entry.at)
            given = held.filter(filter => entry.filters.includes(filter))
            ;[held, from, since, got] = [entry.filters, entry.at, entry.from, []]
          }
          settle(ends[index] ?? 0)
          expect(entries.some(({ kind }) => kind === 'gap')).toBe(false)
        }
      }),
      { numRuns: 10 },
    )
    expect(before).toBeGreaterThan(200)
  }, 60_000)

  it('are told of what is missing since a cursor that is gone, and get what is retained of it', async () => {
    const options = { bounds: { ...wide, maxEvents: 20 }, log }
    const directory = await mkdtemp(join(tmpdir(), 'mqway-changes-'))
    const journal: Journal =
      kind === 'memory' ? new MemoryJournal(options) : await openLevelJournal({ ...options, directory })
    const hub = await openHub({ journal, bounds, log })
    await journal.append(message('state', 'old', { retain: true }))
    for (let left = 2000; left > 0; left--) void journal.append(message('t', String(left)))
    await journal.append(message('t', 'last'))
    await journal.trim()
    const sink = new OrderedSink()
    const { encode } = lineEncoder()
    const subscription = hub.subscribe({ filters: ['own'], encode, sink })
    await eventually(() => sink.isLive)
    const cursor = formatId(journal.epoch, 0)
    const kinds: string[] = []
    subscription.change({
      add: ['state', 't'],
      cursor,
      applied: () => kinds.push(...sink.entries.map(({ kind }) => kind)),
    })
    await eventually(() => sink.entries.filter(({ kind }) => kind === 'live').length === 2)
    expect(kinds).toEqual(['live'])
    const resumes = formatId(journal.epoch, journal.first - 1)
    expect(sink.entries[1]).toEqual({
      kind: 'gap',
      gap: { reason: 'evicted', cursor, resumes, filters: ['state', 't'] },
    })
    const payloads = sink.payloads()
    expect([payloads[0], payloads.at(-1), payloads.length]).toEqual([
      'old',
      'last',
      1 + journal.head - journal.first + 1,
    ])
    hub.close()
    await journal.close()
    await rm(directory, { recursive: true })
  })
})

describe('filters that change on a subscription', () => {
  it('are refused where they are too deep, and change nothing once it is over', async () => {
    const journal = new MemoryJournal({ bounds: wide, log })
    const hub = await openHub({ journal, bounds, log })
    const sink = new OrderedSink()
    const subscription = hub.subscribe({ filters: ['own'], encode: lineEncoder().encode, sink })
    await eventually(() => sink.isLive)
    expect(() => subscription.change({ add: ['a/'.repeat(101)] })).toThrow(RangeError)
    subscription.change({ add: ['t'] })
    subscription.close()
    expect(hub.counters).toMatchObject({ subscribers: 0, catchingUp: 0 })
    await journal.append(message('t', 'late'))
    await turn()
    expect(sink.payloads()).toEqual([])
    subscription.change({ add: ['u'] })
    hub.close()
    await journal.close()
  })
})
