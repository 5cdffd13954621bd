import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Event, formatId, gapMarker } from '../../src/journal/event.js'
import { type Journal, type JournalBounds, resolveCursor, type ShareRule, sizeOf } from '../../src/journal/journal.js'
import { filterCovers, filtersOverlap, topicPredicate } from '../../src/topics/match.js'
import { type JournalPlace, message, readAll, wide } from './journal.js'

const small = (filters: readonly string[], bounds: Partial<ShareRule> = {}): ShareRule => ({
  ...{ maxEvents: wide.maxEvents, maxBytes: wide.maxBytes, maxAge: wide.maxAge },
  ...bounds,
  filters,
})

/** What every `Journal` does where topics have bounds of their own. `durable`: whether it outlives the process. */
export function describeJournalShares(makePlace: () => Promise<JournalPlace>, { durable }: { durable: boolean }): void {
  let place: JournalPlace
  let journal: Journal
  let now: number
  const open = async (bounds: Partial<JournalBounds>): Promise<void> => {
    journal = await place.open({ bounds: { ...wide, ...bounds }, clock: () => now })
  }
  const reopen = async (bounds: Partial<JournalBounds>): Promise<void> => {
    await journal.close()
    await open(bounds)
  }
  const fill = (topic: string, count: number): Promise<Event[]> =>
    Promise.all(Array.from({ length: count }, (_, index) => journal.append(message(topic, String(index)))))
  const at = (sequence: number, filters: readonly string[]) =>
    resolveCursor(journal, formatId(journal.epoch, sequence), filters)

  beforeEach(async () => {
    now = 1_700_000_000_000
    place = await makePlace()
    await open({})
  })
  afterEach(async () => {
    await journal.close()
    await place.dispose()
  })

  it('a flood of topics with their own bounds evicts nothing of the others, and only its subscribers have a gap', async () => {
    await reopen({ rules: [small(['noisy/#'], { maxEvents: 10 })] })
    await fill('quiet', 5)
    await fill('noisy/x', 5000)
    await fill('quiet', 5)
    await journal.trim()
    expect(await readAll(journal, ['quiet'], 0)).toHaveLength(10)
    expect(at(0, ['quiet'])).toEqual({ after: 0, known: 0 })
    expect(await readAll(journal, ['noisy/#'], 0)).toHaveLength(10)
    expect(at(0, ['noisy/+'])).toMatchObject({ gap: 'evicted', after: 4995, lost: { through: 4995 } })
    expect(at(4995, ['noisy/+'])).toEqual({ after: 4995, known: 4995 })
    // What is left of all is still there to be read.
    expect(at(0, ['#'])).toMatchObject({ gap: 'evicted', after: 0, lost: { through: 4995 } })
    expect(await readAll(journal, ['#'], 0)).toHaveLength(20)
    expect(journal.size).toBe(20)
    expect(journal.first).toBe(1)
  })

  it('and the others evict nothing of it', async () => {
    await reopen({ maxEvents: 10, rules: [small(['kept/#'])] })
    await fill('kept/x', 5)
    await fill('t', 3000)
    await journal.trim()
    expect(await readAll(journal, ['kept/x'], 0)).toHaveLength(5)
    expect(at(0, ['kept/x'])).toEqual({ after: 0, known: 0 })
    expect(at(5, ['t'])).toMatchObject({ gap: 'evicted' })
    expect(await journal.latest(['#'], 12)).toBe(3)
  })

  it('keeps each to its own number, bytes and age', async () => {
    const rules = [small(['a/#'], { maxBytes: 12 }), small(['b/#'], { maxAge: 1000 }), small(['a/#', 'c'])]
    await reopen({ rules })
    for (const topic of ['a/x', 'b/x', 'c', 'd']) await fill(topic, 10)
    now += 2000
    await journal.trim()
    const left = async (topic: string) => (await readAll(journal, [topic], 0)).length
    expect(await Promise.all(['a/x', 'b/x', 'c', 'd'].map(left))).toEqual([3, 0, 10, 10])
  })

  it('tells everybody of a hole, whatever the topics', async () => {
    await reopen({ rules: [small(['a/#'])] })
    await fill('a/x', 2)
    await journal.append(gapMarker)
    await fill('a/x', 2)
    expect((await readAll(journal, ['a/x'], 0)).map(({ topic }) => topic)).toEqual(['a/x', 'a/x', '', 'a/x', 'a/x'])
  })

  it.runIf(durable)('knows after a restart with other rules what is gone, and what is not', async () => {
    await reopen({ maxEvents: 10 })
    await fill('noisy/x', 100)
    await journal.trim()
    const rules = [small(['noisy/#'], { maxEvents: 5 })]
    await reopen({ maxEvents: 10, rules })
    // They were among the others then.
    expect(at(50, ['noisy/x'])).toMatchObject({ gap: 'evicted', after: 90 })
    await fill('other', 100)
    await fill('noisy/x', 3)
    await journal.trim()
    expect(at(100, ['noisy/x'])).toEqual({ after: 100, known: 100 })
    expect(await readAll(journal, ['noisy/x'], 100)).toHaveLength(3)
    await fill('noisy/x', 10)
    await journal.trim()
    await reopen({ maxEvents: 10 })
    expect(await readAll(journal, ['noisy/x'], 100)).toHaveLength(5)
    expect(at(200, ['noisy/x'])).toMatchObject({ gap: 'evicted' })
    expect(at(200, ['other'])).toEqual({ after: 200, known: 200 })
  })

  describe('as a model has it', () => {
    const filters = fc.uniqueArray(fc.constantFrom('#', 'a/#', 'a/b', '+/b', 'b/b', 'c', '$x/#', 'none/#'), {
      minLength: 1,
      maxLength: 3,
    })
    const append = fc.record({
      kind: fc.constant('append' as const),
      topics: fc.array(fc.constantFrom('a', 'a/b', 'a/b/c', 'b/b', 'c', '$x/y'), { minLength: 1, maxLength: 8 }),
      times: fc.constantFrom(1, 1, 5, 400),
    })
    const command = fc.oneof(
      append,
      append,
      fc.record({
        kind: fc.constant('subscribe' as const),
        filters,
        after: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      fc.record({ kind: fc.constant('latest' as const), filters, count: fc.nat(60) }),
      fc.record({ kind: fc.constant('reopen' as const) }),
    )
    const bounds = fc.record({ maxEvents: fc.constantFrom(1, 10, 100, 1500), maxBytes: fc.constantFrom(300, 100_000) })
    const rulesOf = fc.array(
      fc.tuple(fc.constantFrom(['a/#'], ['+/b'], ['$x/#', 'c'], ['b/b']), bounds).map(([of, more]) => small(of, more)),
      { maxLength: 3 },
    )

    it('evicts of each share alone, and tells who missed something, and nobody else', async () => {
      let [gone, gaps, complete] = [0, 0, 0]
      await fc.assert(
        fc.asyncProperty(
          bounds,
          rulesOf,
          fc.array(command, { minLength: 1, maxLength: 20 }),
          async (own, rules, steps) => {
            await journal.close()
            await place.dispose()
            place = await makePlace()
            const all = { ...own, rules }
            await open(all)
            const ruleOf = (topic: string) => rules.find(rule => topicPredicate(rule.filters)(topic))
            let known: Event[] = []
            let evicted: Event[] = []
            const newest = new Map<string, number>()
            const evict = async (): Promise<void> => {
              await journal.trim()
              const left: Event[] = []
              const used = new Map<ShareRule | undefined, { count: number; bytes: number; full: boolean }>()
              for (const event of known.toReversed()) {
                const rule = ruleOf(event.topic)
                const sum = used.get(rule) ?? { count: 0, bytes: 0, full: false }
                used.set(rule, sum)
                sum.count++
                sum.bytes += sizeOf(event)
                const { maxEvents, maxBytes } = rule ?? own
                sum.full ||= sum.count > maxEvents || sum.bytes > maxBytes
                if (sum.full) evicted.push(event)
                else left.push(event)
              }
              known = left.reverse()
              expect(journal.size).toBe(known.length)
              expect(journal.first).toBe(known[0]?.sequence ?? journal.head + 1)
            }
            const write = async (topics: readonly string[]): Promise<void> => {
              const written = topics.map(topic => journal.append(message(topic, 'x', { retain: true })))
              for (const event of await Promise.all(written)) {
                known.push(event)
                newest.set(event.topic, event.sequence)
              }
              await evict()
            }
            /** Whether a filter may have topics in the same share as `topic`. */
            const concerns = (filter: string, topic: string): boolean => {
              const rule = ruleOf(topic)
              if (rule) return rule.filters.some(other => filtersOverlap(filter, other))
              return !rules.some(({ filters }) => filters.some(outer => filterCovers(outer, filter)))
            }
            for (const step of steps) {
              if (step.kind === 'append') {
                await write(Array.from({ length: step.times }, () => step.topics).flat())
              } else if (step.kind === 'reopen') {
                await reopen(all)
                if (!durable) {
                  known = []
                  evicted = []
                  newest.clear()
                }
                await evict()
              } else if (step.kind === 'latest') {
                const after = await journal.latest(step.filters, step.count)
                const wanted = known.filter(({ topic }) => topicPredicate(step.filters)(topic))
                const expected = wanted.slice(Math.max(0, wanted.length - step.count))
                expect(await readAll(journal, step.filters, after)).toEqual(expected)
              } else {
                const wanted = topicPredicate(step.filters)
                const start = Math.round(step.after * journal.head)
                const cursor = at(start, step.filters)
                const missed = evicted.filter(({ sequence }) => sequence > start)
                if (missed.some(({ topic }) => wanted(topic))) expect(cursor.gap).toBe('evicted')
                const mayMiss = missed.some(({ topic }) => step.filters.some(filter => concerns(filter, topic)))
                if (!mayMiss) expect(cursor.gap).toBeUndefined()
                if (cursor.gap) gaps++
                else complete++
                expect(await readAll(journal, step.filters, cursor.after)).toEqual(
                  known.filter(({ topic, sequence }) => sequence > start && wanted(topic)),
                )
                // A subscriber who reads on while more comes, and knows the state at `start`.
                const state = new Map<string, number>()
                for (const { topic, sequence } of [...evicted, ...known].sort((a, b) => a.sequence - b.sequence)) {
                  if (sequence <= start) state.set(topic, sequence)
                }
                let knownLosses = cursor.lost?.evicted
                let position = cursor.after
                const retained = async (after: number): Promise<void> => {
                  const range = { after, through: position }
                  for await (const events of journal.retained(step.filters, range)) {
                    for (const { topic, sequence } of events) state.set(topic, sequence)
                  }
                }
                if (cursor.gap) await retained(start)
                for (let round = 0; position < journal.head; round++) {
                  const query = { filters: step.filters, after: position, through: journal.head, knownLosses }
                  const portion = await journal.read({ ...query, limit: 7, maxBytes: 2 ** 20 })
                  if (portion.lost) {
                    const before = position
                    knownLosses = portion.lost.evicted
                    position = portion.after
                    await retained(before)
                  } else {
                    expect(portion.position).toBeGreaterThan(position)
                    for (const { topic, sequence } of portion.events) state.set(topic, sequence)
                    position = portion.position
                  }
                  if (round < 10) await write(['a', 'b/b', 'c', 'a/b'])
                }
                for (const [topic, sequence] of newest)
                  if (wanted(topic)) expect([topic, state.get(topic)]).toEqual([topic, sequence])
              }
            }
            gone += evicted.length
          },
        ),
        { numRuns: 80 },
      )
      // The property is worth something only where all this happened.
      expect(gone).toBeGreaterThan(100)
      expect(gaps).toBeGreaterThan(5)
      expect(complete).toBeGreaterThan(5)
    }, 120_000)
  })
}
