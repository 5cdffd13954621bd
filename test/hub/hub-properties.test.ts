import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { type Hub, openHub, type Subscription } from '../../src/hub/hub.js'
import { type Event, formatId, parseId } from '../../src/journal/event.js'
import type { Journal, JournalBounds } from '../../src/journal/journal.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { topicPredicate } from '../../src/topics/match.js'
import { message, wide } from '../contracts/journal.js'
import { eventually } from '../helpers/wait.js'
import { type Line, lineEncoder, TestSink } from './rig.js'

const log = createLog({ level: 'silent', format: 'json' })
const topics = ['a', 'a/b', 'a/c', 'b/c', '/b', 'rare', '$x/y']
const filterSets = [['#'], ['a/#'], ['+/c', 'a/#'], ['rare'], ['/b', 'a', '$x/#'], ['none'], ['+']]

/** Chance, repeatable as far as the order of what is awaited is. */
function chance(seed: number): (below: number) => number {
  let state = (seed % 2147483646) + 1
  return below => {
    state = (state * 48271) % 2147483647
    return state % below
  }
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

/** Somebody who comes and goes, reads when they like, and keeps their cursor. */
class Reader {
  readonly got: Line[] = []
  /** Ranges of sequences that were said to be missing: without the first, with the last. */
  readonly gaps: [after: number, through: number][] = []
  readonly filters: readonly string[]
  /** The place after which it has to have everything. */
  start = 0
  cutOff = 0
  #cursor: string | undefined
  #sink = new TestSink()
  #subscription: Subscription | undefined
  readonly #hub: Hub
  readonly #random: (below: number) => number
  readonly #encode: (event: Event) => Buffer

  constructor(
    hub: Hub,
    filters: readonly string[],
    random: (below: number) => number,
    encode: (event: Event) => Buffer,
  ) {
    this.#hub = hub
    this.filters = filters
    this.#random = random
    this.#encode = encode
  }

  connect(head: number, patient: boolean): void {
    if (this.#cursor === undefined) this.start = head
    this.#sink = new TestSink()
    const patience = this.#random(4)
    this.#sink.hasRoom = () => patient || this.#random(4) < patience
    const options = { filters: this.filters, encode: this.#encode, sink: this.#sink }
    this.#subscription = this.#hub.subscribe(
      this.#cursor === undefined ? options : { ...options, cursor: this.#cursor },
    )
  }

  disconnect(): void {
    if (!this.#subscription) return
    // What the hub says that it was given must be what it was given.
    const cursor = this.#sink.closed ? this.#sink.closed.cursor : this.#subscription.cursor
    if (this.#sink.closed?.reason === 'too-slow') this.cutOff++
    this.#subscription.close()
    expect(this.#subscription.cursor).toBe(cursor)
    const last = this.#cursor
    this.#cursor = cursor
    for (const gap of this.#sink.gaps) {
      this.gaps.push([parseId(gap.cursor)?.sequence ?? 0, parseId(gap.resumes)?.sequence ?? 0])
    }
    const lines = this.#sink.lines().filter(({ retained }) => !retained)
    this.got.push(...lines)
    if (lines.length > 0) expect(last === undefined && cursor === undefined).toBe(false)
    this.#subscription = undefined
  }

  get connected(): boolean {
    return this.#subscription !== undefined
  }

  get isLive(): boolean {
    return this.#sink.isLive
  }

  get cursor(): string | undefined {
    return this.#subscription?.cursor
  }

  drain(): void {
    this.#sink.drain()
  }
}

describe.each(['memory', 'level'] as const)(
  'readers of a hub on a journal in %s, who come and go at any time',
  kind => {
    const play = async (seed: number, bounds: Partial<JournalBounds>) => {
      const random = chance(seed)
      const directory = await mkdtemp(join(tmpdir(), 'mqway-hub-'))
      const options = { bounds: { ...wide, ...bounds }, log }
      const journal: Journal =
        kind === 'memory' ? new MemoryJournal(options) : await openLevelJournal({ ...options, directory })
      const hub = await openHub({
        journal,
        bounds: {
          maxQueuedEvents: 5 + random(100),
          maxQueuedBytes: 500 + random(20_000),
          recent: { maxEvents: 1 + random(200), maxBytes: 1 + random(20_000) },
        },
        log,
      })
      const events: Event[] = []
      let told = 0
      journal.watch(batch => {
        events.push(...batch)
        told = batch.at(-1)?.sequence ?? told
      })
      const { encode } = lineEncoder()
      const readers = Array.from({ length: 12 }, (_, index) => {
        return new Reader(hub, filterSets[index % filterSets.length] ?? [], random, encode)
      })
      const total = 700 + random(900)
      let published = 0
      const pending = new Set<Promise<unknown>>()
      while (published < total) {
        for (let left = random(40); left > 0; left--) {
          const topic = random(50) === 0 ? 'rare' : (topics[random(topics.length)] ?? 'a')
          const payload = Buffer.alloc(random(100), 'x')
          const appended = journal.append(message(topic, payload, { retain: random(10) === 0 }))
          pending.add(appended)
          void appended.finally(() => pending.delete(appended))
          published++
        }
        if (random(3) === 0) await Promise.race([...pending, turn()])
        for (const reader of readers) {
          const what = random(12)
          if (!reader.connected && what < 4) reader.connect(told, false)
          else if (reader.connected && what === 0) reader.disconnect()
          else if (what < 6) reader.drain()
        }
        await turn()
      }
      await Promise.all(pending)
      for (const reader of readers) {
        reader.disconnect()
        reader.connect(told, true)
      }
      const last = formatId(journal.epoch, journal.head)
      await eventually(() => readers.every(reader => reader.isLive && reader.cursor === last))
      for (const reader of readers) reader.disconnect()
      const counters = { ...hub.counters }
      hub.close()
      await journal.close()
      await rm(directory, { recursive: true })
      return { events, readers, counters }
    }

    /** What of `events` is missing to a reader though it was not told. Throws where it got something twice, or too early. */
    const check = ({ events, readers }: Awaited<ReturnType<typeof play>>): void => {
      for (const reader of readers) {
        const sequences = reader.got.map(({ id }) => parseId(id)?.sequence ?? 0)
        for (const [index, sequence] of sequences.entries()) expect(sequence).toBeGreaterThan(sequences[index - 1] ?? 0)
        const got = new Set(sequences)
        const wanted = topicPredicate(reader.filters)
        for (const { topic, sequence } of events) {
          const expected = wanted(topic) && sequence > reader.start
          const excused = reader.gaps.some(([after, through]) => sequence > after && sequence <= through)
          if (expected && !got.has(sequence)) expect(excused, `${sequence} is missing`).toBe(true)
          if (!expected) expect(got.has(sequence)).toBe(false)
        }
      }
    }

    it('get every event once and in order', async () => {
      const seen = { replayed: 0, delivered: 0, cutOff: 0 }
      await fc.assert(
        fc.asyncProperty(fc.nat(), async seed => {
          const played = await play(seed, {})
          check(played)
          expect(played.readers.flatMap(({ gaps }) => gaps)).toEqual([])
          for (const key of ['replayed', 'delivered', 'cutOff'] as const) seen[key] += played.counters[key]
        }),
        { numRuns: 12 },
      )
      // The property is worth something only where all this happened.
      expect(seen.replayed).toBeGreaterThan(5000)
      expect(seen.delivered - seen.replayed).toBeGreaterThan(1000)
      expect(seen.cutOff).toBeGreaterThan(5)
    }, 120_000)

    it('are told of every event that they miss, where the journal lets go of what they have not read', async () => {
      let gaps = 0
      await fc.assert(
        fc.asyncProperty(fc.nat(), fc.integer({ min: 1, max: 400 }), async (seed, maxEvents) => {
          const played = await play(seed, { maxEvents })
          check(played)
          gaps += played.counters.gaps
        }),
        { numRuns: 12 },
      )
      expect(gaps).toBeGreaterThan(20)
    }, 120_000)
  },
)
