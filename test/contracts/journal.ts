import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Event } from '../../src/journal/event.js'
import { formatId } from '../../src/journal/event.js'
import { type Journal, type JournalBounds, resolveCursor, sizeOf } from '../../src/journal/journal.js'
import type { Message } from '../../src/mqtt/message.js'
import { encodeProperties } from '../../src/mqtt/properties.js'
import { topicPredicate } from '../../src/topics/match.js'

/** A place where a journal can be. */
export interface JournalPlace {
  open(options: { bounds: JournalBounds; clock: () => number }): Promise<Journal>
  /** Ends a journal as the sudden end of the process does: what was not written by now never will be. */
  crash(journal: Journal): Promise<void>
  dispose(): Promise<void>
}

export const wide: JournalBounds = {
  maxEvents: 1_000_000,
  maxBytes: 2 ** 40,
  maxAge: 2 ** 40,
  maxRetained: 100_000,
  maxRetainedBytes: 2 ** 40,
  maxWaiting: 100_000,
  maxWaitingBytes: 2 ** 30,
}

/** A message of which nothing matters but what is given. */
export function message(topic: string, payload: string | Buffer = '', more: Partial<Message> = {}): Message {
  return { topic, payload: Buffer.from(payload), qos: 0, retain: false, ...more }
}

/** All that `filters` match after a place, as somebody reads it who goes on until there is no more. */
export async function readAll(journal: Journal, filters: readonly string[], after: number, limit = 100) {
  const events: Event[] = []
  let position = after
  while (position < journal.head) {
    const query = { filters, after: position, through: journal.head, limit, maxBytes: 2 ** 20 }
    const portion = await journal.read(query)
    expect(portion.position).toBeGreaterThan(position)
    expect(portion.events.length).toBeLessThanOrEqual(limit)
    events.push(...portion.events)
    position = portion.position
  }
  return events
}

async function readRetained(journal: Journal, filters: readonly string[], range = { after: 0, through: journal.head }) {
  const events: Event[] = []
  for await (const portion of journal.retained(filters, range)) events.push(...portion)
  return events.sort((a, b) => a.sequence - b.sequence)
}

const texts = (events: readonly Event[]): string[] => events.map(({ payload }) => payload.toString())

/** What every `Journal` does. `durable`: whether it outlives the process. */
export function describeJournal(makePlace: () => Promise<JournalPlace>, { durable }: { durable: boolean }): void {
  let place: JournalPlace
  let journal: Journal
  let now: number
  const clock = (): number => now
  const open = async (bounds: Partial<JournalBounds> = {}): Promise<void> => {
    journal = await place.open({ bounds: { ...wide, ...bounds }, clock })
  }
  const reopen = async (bounds: Partial<JournalBounds> = {}): Promise<void> => {
    await journal.close()
    await open(bounds)
  }
  const fill = (count: number, topic: (index: number) => string = () => 't'): Promise<Event[]> =>
    Promise.all(Array.from({ length: count }, (_, index) => journal.append(message(topic(index), String(index)))))

  beforeEach(async () => {
    now = 1_700_000_000_000
    place = await makePlace()
    await open()
  })
  afterEach(async () => {
    await journal.close()
    await place.dispose()
  })

  it('gives each message the next place, and its time', async () => {
    const [first, second] = [
      await journal.append(message('a/b', 'one', { qos: 1 })),
      await journal.append(message('c')),
    ]
    expect(first).toEqual({
      id: formatId(journal.epoch, 1),
      sequence: 1,
      topic: 'a/b',
      time: now,
      payload: Buffer.from('one'),
      qos: 1,
      retained: false,
    })
    expect(second.sequence).toBe(2)
    expect([journal.first, journal.head]).toEqual([1, 2])
    expect(await readAll(journal, ['#'], 0)).toEqual([first, second])
  })

  it('begins empty', async () => {
    expect([journal.first, journal.head]).toEqual([1, 0])
    expect(await journal.latest(['#'], 10)).toBe(0)
    const query = { filters: ['#'], after: 0, through: 0, limit: 1, maxBytes: 1 }
    expect(await journal.read(query)).toEqual({ events: [], after: 0, position: 0 })
  })

  it('keeps a payload of 16 MiB, an empty one, and every byte', async () => {
    const payloads = [
      Buffer.alloc(2 ** 24, 'x'),
      Buffer.alloc(0),
      Buffer.from(Array.from({ length: 256 }, (_, i) => i)),
    ]
    for (const payload of payloads) await journal.append(message('big/ünï', payload, { retain: true }))
    if (durable) await reopen()
    const events = await readAll(journal, ['big/+'], 0)
    expect(events.map(({ payload }) => payload.length)).toEqual([2 ** 24, 0, 256])
    expect(payloads.every((payload, index) => events[index]?.payload.equals(payload))).toBe(true)
    const [retained] = await readRetained(journal, ['#'])
    expect(retained?.payload.equals(payloads[2] ?? Buffer.alloc(0))).toBe(true)
  })

  it('keeps no more of the memory that a payload came in than the payload', async () => {
    const block = Buffer.alloc(65_536, 'block')
    const { payload } = await journal.append({ ...message('t'), payload: block.subarray(10, 15) })
    block.fill('x')
    expect(payload.toString()).toBe('block')
    expect(payload.buffer.byteLength).toBeLessThanOrEqual(Buffer.poolSize)
  })

  it('tells who watches of every event once, in order, before whoever appended it', async () => {
    const told: number[] = []
    const unwatch = journal.watch(events => told.push(...events.map(({ sequence }) => sequence)))
    const appended = Array.from({ length: 3000 }, async (_, index) => {
      const { sequence } = await journal.append(message('t', String(index)))
      expect(sequence).toBe(index + 1)
      expect(told.length).toBeGreaterThanOrEqual(sequence)
    })
    await Promise.all(appended)
    expect(told).toEqual(appended.map((_, index) => index + 1))
    unwatch()
    await journal.append(message('t'))
    expect(told).toHaveLength(3000)
  })

  it('reads on from a place, by filters, in portions', async () => {
    const topics = ['news/europe/sport', 'news/asia/sport', 'news', '$SYS/uptime', '/news', 'news/europe']
    await fill(6000, index => topics[index % topics.length] ?? '')
    const sequences = async (filters: string[], after: number, limit?: number) =>
      (await readAll(journal, filters, after, limit)).map(({ sequence }) => sequence)
    const expected = (filters: string[], after: number) => {
      const wanted = topicPredicate(filters)
      const all = Array.from({ length: 6000 }, (_, index) => index + 1)
      return all.filter(sequence => sequence > after && wanted(topics[(sequence - 1) % topics.length] ?? ''))
    }
    for (const filters of [['#'], ['news/#'], ['news/+/sport', '/news'], ['$SYS/#'], ['none'], ['+', 'news/europe']]) {
      for (const after of [0, 1, 1023, 1024, 1025, 5000, 5999, 6000]) {
        expect(await sequences(filters, after), `${filters} after ${after}`).toEqual(expected(filters, after))
      }
    }
    expect(await sequences(['news/#'], 0, 7)).toEqual(expected(['news/#'], 0))
    expect(expected(['news/#'], 0)).toHaveLength(4000)
  })

  it('reads no further than it is asked to, and stops when there are enough bytes', async () => {
    await fill(4000)
    expect(await journal.read({ filters: ['none'], after: 10, through: 1500, limit: 1, maxBytes: 1 })).toEqual({
      events: [],
      after: 10,
      position: 1500,
    })
    const query = { filters: ['#'], after: 10, through: 1500, limit: 10_000, maxBytes: 2 ** 30 }
    const portion = await journal.read(query)
    expect(portion.events.at(-1)?.sequence).toBe(portion.position)
    expect(portion.position).toBeLessThanOrEqual(1500)
    const few = await journal.read({ ...query, maxBytes: 1 })
    expect(few).toMatchObject({ events: [{ sequence: 11 }], after: 10, position: 11 })
    const rest = await journal.read({ ...query, after: 1500 })
    expect(rest).toEqual({ events: [], after: 1500, position: 1500 })
  })

  it('finds the place from which on there are the newest of a filter', async () => {
    await fill(5000, index => (index % 10 === 0 ? 'rare/x' : 'often'))
    for (const count of [0, 1, 7, 103, 499, 500, 501, 10_000]) {
      const after = await journal.latest(['rare/+'], count)
      const events = await readAll(journal, ['rare/+'], after)
      expect(events.length).toBe(Math.min(count, 500))
      if (events.length > 0) expect(events.at(-1)?.sequence).toBe(4991)
    }
  })

  it('keeps to its bounds on number, bytes and age', async () => {
    await reopen({ maxEvents: 100 })
    await fill(5000)
    await journal.trim()
    const [before] = [journal.head]
    expect(journal.head - journal.first + 1).toBe(100)
    expect(texts(await readAll(journal, ['#'], journal.first - 1))).toHaveLength(100)

    await reopen({ maxBytes: 1000 })
    const start = durable ? before : 0
    await Promise.all(Array.from({ length: 300 }, () => journal.append(message('t', 'x'.repeat(99)))))
    await journal.trim()
    expect([journal.first, journal.head]).toEqual([start + 291, start + 300])

    await reopen({ maxAge: 1000 })
    const last = journal.head
    now += 600
    await journal.append(message('t', 'later'))
    now += 600
    await journal.trim()
    expect([journal.first, journal.head]).toEqual([last + 1, last + 1])
    now += 600
    await journal.trim()
    expect([journal.first, journal.head]).toEqual([last + 2, last + 1])
    expect((await journal.append(message('t'))).sequence).toBe(last + 2)
  })

  it('trims a great many without holding up what is to be written', async () => {
    await fill(60_000)
    await reopen({ maxEvents: durable ? 10 : 60_000 })
    if (!durable) await fill(60_000)
    now += wide.maxAge + 1
    let isTrimming = true
    const trimmed = journal.trim().then(() => {
      isTrimming = false
    })
    let meanwhile = 0
    for (let index = 0; index < 20; index++) {
      await journal.append(message('t'))
      if (isTrimming) meanwhile++
    }
    expect(meanwhile).toBeGreaterThan(0)
    await trimmed
    await journal.trim()
    expect(journal.head - journal.first + 1).toBeLessThanOrEqual(20)
  })

  it('tells who reads from a place that is gone where the rest begins', async () => {
    await reopen({ maxEvents: 50 })
    await fill(100)
    await journal.trim()
    const query = { filters: ['t'], after: journal.first - 5, through: journal.head, limit: 3, maxBytes: 1000 }
    const oldest = journal.first
    expect(await journal.read(query)).toMatchObject({ after: oldest - 1, events: [{ sequence: oldest }, {}, {}] })
    const at = (sequence: number) => resolveCursor(journal, formatId(journal.epoch, sequence))
    expect(at(oldest - 1)).toEqual({ after: oldest - 1, known: oldest - 1 })
    expect(at(oldest - 2)).toMatchObject({ after: oldest - 1, known: oldest - 2, gap: 'evicted' })
    expect(at(journal.head)).toEqual({ after: journal.head, known: journal.head })
    expect(at(journal.head + 1)).toMatchObject(
      // Another gateway may have given it.
      journal.isShared ? { after: journal.head + 1 } : { after: oldest - 1, known: 0, gap: 'unknown' },
    )
    const another = formatId('0'.repeat(15), oldest)
    expect(resolveCursor(journal, another)).toMatchObject({ after: oldest - 1, known: 0, gap: 'other-epoch' })
    for (const text of ['', 'x', '2024-01-01T00:00:00Z', `${journal.epoch}-01`, `${journal.epoch}-${2 ** 53}`]) {
      expect(resolveCursor(journal, text).gap).toBe('unknown')
    }
  })

  it('gives a new subscriber the last retained message of each topic, until it is deleted', async () => {
    const put = (topic: string, text: string) => journal.append(message(topic, text, { retain: true }))
    await put('a/1', 'old')
    await put('a/2', 'kept')
    await put('$SYS/x', 'system')
    await journal.append(message('a/1', 'not retained'))
    await put('a/1', 'new')
    const { id } = await put('b', 'gone')
    await put('b', '')
    const events = await readRetained(journal, ['#'])
    expect(texts(events)).toEqual(['kept', 'new'])
    expect(events[1]).toMatchObject({ topic: 'a/1', retained: true, sequence: 5, id: formatId(journal.epoch, 5) })
    expect(texts(await readRetained(journal, ['a/+', '$SYS/#', 'a/1']))).toEqual(['kept', 'system', 'new'])
    expect(await readRetained(journal, ['a/+'], { after: 2, through: 4 })).toEqual([])
    expect(id).toBe(formatId(journal.epoch, 6))
    expect(texts(await readAll(journal, ['b'], 0))).toEqual(['gone', ''])
  })

  it('keeps the properties of a message, and when it expires', async () => {
    const properties = encodeProperties({ contentType: 'text/plain', userProperties: [['a', 'ü']] })
    const written = [
      await journal.append(message('t', 'all', { properties, expires: now + 500, retain: true })),
      await journal.append(message('t', 'x'.repeat(20_000), { properties, retain: true })),
      await journal.append(message('u', 'expires', { expires: now + 500, retain: true })),
      await journal.append(message('v', 'plain', { retain: true })),
    ]
    expect(written.map(({ expires }) => expires)).toEqual([now + 500, undefined, now + 500, undefined])
    if (durable) await reopen()
    const events = await readAll(journal, ['#'], 0)
    expect(events).toEqual(written)
    expect(events.map(event => event.properties?.equals(properties))).toEqual([true, true, undefined, undefined])
    const retained = await readRetained(journal, ['#'])
    expect(retained).toEqual(written.slice(1).map(event => ({ ...event, retained: true })))
  })

  it('counts properties for its bound of bytes', async () => {
    await reopen({ maxBytes: 1000, maxRetainedBytes: 250 })
    const properties = encodeProperties({ correlationData: Buffer.alloc(96) })
    const all = Array.from({ length: 30 }, () => journal.append(message('t', '', { properties })))
    await Promise.all(all)
    await journal.trim()
    expect(journal.size).toBe(10)
    for (const topic of ['a', 'b', 'c']) await journal.append(message(topic, '1', { properties, retain: true }))
    expect((await readRetained(journal, ['#'])).map(({ topic }) => topic)).toEqual(['a', 'b'])
    const query = { filters: ['#'], after: 0, through: journal.head, limit: 100, maxBytes: 198 }
    const { resume } = journal.lost(['#'], 0) ?? { resume: 0 }
    expect((await journal.read({ ...query, after: resume })).events).toHaveLength(2)
  })

  it('returns no expired event, without a loss, and removes expired retained messages', async () => {
    const put = (topic: string, expires?: number) =>
      journal.append(message(topic, topic, { retain: true, ...(expires && { expires }) }))
    await put('first', now + 1000)
    await put('second', now + 2000)
    await put('forever')
    await put('again', now + 1000)
    await put('again')
    now += 999
    expect(texts(await readRetained(journal, ['#']))).toEqual(['first', 'second', 'forever', 'again'])
    expect(await readAll(journal, ['#'], 0)).toHaveLength(5)
    now += 1
    // Before they are removed.
    expect(texts(await readRetained(journal, ['#']))).toEqual(['second', 'forever', 'again'])
    expect(texts(await readAll(journal, ['#'], 0, 1))).toEqual(['second', 'forever', 'again'])
    const query = { after: 0, through: journal.head, limit: 100, maxBytes: 2 ** 20 }
    expect(await journal.read({ ...query, filters: ['first'] })).toEqual({ events: [], after: 0, position: 5 })
    expect((await journal.read({ ...query, includesExpired: true })).events).toHaveLength(5)
    if (durable) await reopen()
    await journal.trim()
    now -= 1000
    // The events are there as before; the retained state is not.
    expect(await readAll(journal, ['#'], 0)).toHaveLength(5)
    expect(texts(await readRetained(journal, ['#']))).toEqual(['second', 'forever', 'again'])
  })

  it('has room for a new retained message when others have expired', async () => {
    await reopen({ maxRetained: 2000 })
    const put = (topic: string) => journal.append(message(topic, 'x', { retain: true, expires: now + 1000 }))
    await Promise.all(Array.from({ length: 2000 }, (_, index) => put(`state/${index}`)))
    await put('late')
    expect(await readRetained(journal, ['late'])).toEqual([])
    now += 1000
    await journal.trim()
    await put('late')
    if (durable) await reopen({ maxRetained: 2000 })
    expect(await readRetained(journal, ['#'])).toMatchObject([{ topic: 'late' }])
  })

  it('keeps retained messages when their events are trimmed', async () => {
    await reopen({ maxEvents: 2 })
    await journal.append(message('state', 'up', { retain: true }))
    await fill(2000)
    await journal.trim()
    expect(await readRetained(journal, ['state'])).toMatchObject([{ sequence: 1, topic: 'state' }])
    if (durable) await reopen({ maxEvents: 2 })
    expect(texts(await readRetained(journal, ['state']))).toEqual(['up'])
  })

  it('retains for no more topics and bytes than it may, and rather nothing than what has passed', async () => {
    await reopen({ maxRetained: 3, maxRetainedBytes: 1000 })
    for (const topic of ['a', 'b', 'c', 'd']) await journal.append(message(topic, topic, { retain: true }))
    expect(texts(await readRetained(journal, ['+']))).toEqual(['a', 'b', 'c'])
    await journal.append(message('b', 'x'.repeat(999), { retain: true }))
    expect(texts(await readRetained(journal, ['+']))).toEqual(['a', 'c'])
    await journal.append(message('d', 'now', { retain: true }))
    expect(texts(await readRetained(journal, ['+']))).toEqual(['a', 'c', 'now'])
  })

  it('hands out thousands of retained messages in portions', async () => {
    const topics = Array.from({ length: 3000 }, (_, index) => `state/${index}`)
    await Promise.all(topics.map(topic => journal.append(message(topic, topic, { retain: true }))))
    let portions = 0
    const found = new Set<string>()
    for await (const events of journal.retained(['state/+'], { after: 0, through: journal.head })) {
      portions++
      for (const { topic } of events) found.add(topic)
    }
    expect(found.size).toBe(3000)
    expect(portions).toBeGreaterThan(10)
  })

  it('looks through thousands of retained messages in portions, also for what is not there', async () => {
    const topics = Array.from({ length: 10_000 }, (_, index) => `state/${index}/x`)
    await Promise.all(topics.map(topic => journal.append(message(topic, topic, { retain: true }))))
    const sizes: number[] = []
    const filters = ['state/+/y', ...Array.from({ length: 999 }, (_, index) => `state/+/z${index}`)]
    for await (const events of journal.retained(filters, { after: 0, through: journal.head })) sizes.push(events.length)
    expect(sizes.every(size => size === 0)).toBe(true)
    expect(sizes.length).toBeGreaterThan(2)
  })

  it('refuses what is too much to wait, and takes more when that is written', async () => {
    await reopen({ maxWaiting: 10, maxWaitingBytes: 1000 })
    const outcome = (promise: Promise<Event>) =>
      promise.then(
        () => 'ok',
        (error: Error) => error.message,
      )
    const many = await Promise.all(Array.from({ length: 12 }, () => outcome(journal.append(message('t')))))
    const busy = 'Too many messages wait to be written to the journal'
    expect(many).toEqual([...Array(10).fill('ok'), busy, busy])
    const large = [message('t', 'x'.repeat(5000)), message('t', 'x')]
    expect(await Promise.all(large.map(each => outcome(journal.append(each))))).toEqual(['ok', busy])
    expect(await outcome(journal.append(message('t')))).toBe('ok')
    expect(journal.head).toBe((await readAll(journal, ['#'], 0)).length)
  })

  it('writes down what waits before it closes, and refuses what comes then', async () => {
    const pending = fill(100)
    const closed = journal.close()
    await expect(journal.append(message('t'))).rejects.toMatchObject({ reason: 'closed' })
    expect(await pending).toHaveLength(100)
    await closed
    await open()
    expect(journal.head).toBe(durable ? 100 : 0)
  })

  it(durable ? 'has everything after a crash that it told anybody' : 'begins a new epoch after a crash', async () => {
    const { epoch } = journal
    const ids = (await fill(3000)).map(({ id }) => id)
    await journal.append(message('state', 'up', { retain: true }))
    await place.crash(journal)
    await open()
    expect(journal.epoch === epoch).toBe(durable)
    if (durable) expect((await readAll(journal, ['t'], 0)).map(({ id }) => id)).toEqual(ids)
    expect(texts(await readRetained(journal, ['#']))).toEqual(durable ? ['up'] : [])
  })

  describe('as a model has it', () => {
    const topic = fc.constantFrom('a', 'a/b', 'a/b/c', '/a', 'b/b', '$x/y')
    const filters = fc.uniqueArray(fc.constantFrom('#', 'a', 'a/#', '+/b', '+', '/+', '$x/#', 'none/#'), {
      minLength: 1,
      maxLength: 3,
    })
    const append = fc.record({
      kind: fc.constant('append' as const),
      messages: fc.array(
        fc.record({
          topic,
          // Now and then one that is kept apart on disk.
          length: fc.oneof({ weight: 20, arbitrary: fc.nat(40) }, { weight: 1, arbitrary: fc.constant(20_000) }),
          retain: fc.boolean(),
        }),
        { minLength: 1, maxLength: 30 },
      ),
      /** Every so often, enough to fill segments. */
      times: fc.constantFrom(1, 1, 1, 1, 50),
    })
    const command = fc.oneof(
      append,
      append,
      fc.record({
        kind: fc.constant('read' as const),
        filters,
        after: fc.double({ min: 0, max: 1, noNaN: true }),
        limit: fc.integer({ min: 1, max: 50 }),
      }),
      fc.record({ kind: fc.constant('latest' as const), filters, count: fc.nat(60) }),
      fc.record({ kind: fc.constant('retained' as const), filters }),
      fc.record({ kind: fc.constant('wait' as const), time: fc.nat(700) }),
      fc.record({ kind: fc.constantFrom('crash' as const, 'reopen' as const) }),
    )
    const boundsOf = fc.record({
      maxEvents: fc.constantFrom(1, 10, 100, 1500, 100_000),
      maxBytes: fc.constantFrom(30, 1000, 50_000, 10_000_000),
      maxAge: fc.constantFrom(500, 1000, 1_000_000),
    })

    it('appends, trims, reads from cursors, crashes and opens again', async () => {
      let appended = 0
      let gone = 0
      await fc.assert(
        fc.asyncProperty(boundsOf, fc.array(command, { minLength: 1, maxLength: 25 }), async (bounds, commands) => {
          await journal.close()
          await place.dispose()
          place = await makePlace()
          await open(bounds)
          let known: Event[] = []
          let first = 1
          let epoch = journal.epoch
          const retained = new Map<string, Event>()
          const trim = async (): Promise<void> => {
            await journal.trim()
            let bytes = known.reduce((sum, event) => sum + sizeOf(event), 0)
            let drop = 0
            for (const event of known) {
              const over = known.length - drop > bounds.maxEvents || bytes > bounds.maxBytes
              if (!over && event.time >= now - bounds.maxAge) break
              bytes -= sizeOf(event)
              drop++
            }
            gone += drop
            known = known.slice(drop)
            first += drop
            expect(journal.first).toBe(first)
          }
          for (const each of commands) {
            if (each.kind === 'append') {
              const messages = Array.from({ length: each.times }, () => each.messages).flat()
              const events = await Promise.all(
                messages.map(({ topic, length, retain }, index) =>
                  journal.append(message(topic, Buffer.alloc(length, String(index)), { retain })),
                ),
              )
              appended += events.length
              for (const [index, event] of events.entries()) {
                expect(event.sequence).toBe(first + known.length)
                known.push(event)
                if (!messages[index]?.retain) continue
                if (event.payload.length === 0) retained.delete(event.topic)
                else retained.set(event.topic, { ...event, retained: true })
              }
              await trim()
            } else if (each.kind === 'wait') {
              now += each.time
              await trim()
            } else if (each.kind === 'read') {
              const after = first - 1 + Math.floor(each.after * (known.length + 1))
              const wanted = topicPredicate(each.filters)
              const expected = known.filter(({ topic, sequence }) => sequence > after && wanted(topic))
              expect(await readAll(journal, each.filters, after, each.limit)).toEqual(expected)
            } else if (each.kind === 'latest') {
              const after = await journal.latest(each.filters, each.count)
              const wanted = known.filter(({ topic }) => topicPredicate(each.filters)(topic))
              const expected = wanted.slice(Math.max(0, wanted.length - each.count))
              expect(await readAll(journal, each.filters, after)).toEqual(expected)
            } else if (each.kind === 'retained') {
              const wanted = [...retained.values()].filter(({ topic }) => topicPredicate(each.filters)(topic))
              expect(await readRetained(journal, each.filters)).toEqual(wanted.sort((a, b) => a.sequence - b.sequence))
            } else {
              await (each.kind === 'crash' ? place.crash(journal) : journal.close())
              await open(bounds)
              expect(journal.epoch === epoch).toBe(durable)
              if (!durable) {
                known = []
                first = 1
                retained.clear()
                epoch = journal.epoch
              }
              await trim()
              expect(journal.head).toBe(first + known.length - 1)
            }
          }
        }),
        { numRuns: 60 },
      )
      // The property is worth something only where all this happened.
      expect(appended).toBeGreaterThan(500)
      expect(gone).toBeGreaterThan(50)
    }, 120_000)
  })
}
