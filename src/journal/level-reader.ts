import { DamagedRecord, isDamage } from '../storage/open-level.js'
import type { TopicPredicate } from '../topics/match.js'
import { type Event, isExpired } from './event.js'
import { type JournalQuery, readBytes, type SequenceRange } from './journal.js'
import { type Database, decodeEvent, readSequence, type StoredEvent, sequenceKey, topicKey } from './level-records.js'
import { readTopics, type Segment, SegmentScan, segmentLength, sequenceAt, type TopicsRecord } from './level-segment.js'

type Snapshot = ReturnType<Database['snapshot']>

/** Segments scanned in one read at most: some milliseconds. */
const maxSegments = 64
/** Scanning pauses after this time, in milliseconds: a thousand filters take a hundred times longer than one. */
const sliceTime = 3
/** Segments fetched at a time. */
const segmentsAtOnce = 32
const iteratorBytes = 256 * 1024
/** Events fetched at a time; each has at most `largePayload` bytes besides its topic. */
const eventsAtOnce = 32

export interface ShareView {
  readonly share: number
  /** Sequence of the newest evicted event. */
  readonly evicted: number
  /** Sequence of the newest event. */
  readonly newest: number
  /** Last sequence of the newest full segment; 0 for none. */
  readonly sealed: number
  /** The incomplete segment after it. */
  readonly tail: Segment
}

export interface View {
  readonly database: Database
  readonly epoch: string
  readonly head: number
  readonly shares: readonly ShareView[]
}

interface FoundEvent {
  readonly share: number
  readonly sequence: number
}

/** Matching events, in order, up to `position`. */
interface Found {
  readonly events: readonly FoundEvent[]
  readonly position: number
  readonly damage?: unknown
}

/** Pauses long work between event-loop ticks. */
class TickBudget {
  #since = performance.now()

  /** Runs all steps, with a pause whenever `sliceTime` is over. */
  async run<T>(steps: Generator<void, T, void>): Promise<T> {
    for (;;) {
      const { value, done } = steps.next()
      if (done === true) return value
      if (performance.now() - this.#since < sliceTime) continue
      await new Promise(setImmediate)
      this.#since = performance.now()
    }
  }
}

/** Events up to `position`. With `damage`, those after it up to `resume` cannot be read. */
export interface Read {
  readonly events: readonly Event[]
  readonly position: number
  readonly damage?: { readonly error: unknown; readonly resume: number }
}

export interface ReadLimits extends Pick<JournalQuery, 'limit' | 'maxBytes'> {
  /** Events that have expired by then are left out; without it, none. */
  readonly now?: number | undefined
}

/** Reads the wanted events in `range` from a snapshot. */
export async function readEvents(
  view: View,
  wanted: TopicPredicate,
  range: SequenceRange,
  limits: ReadLimits,
): Promise<Read> {
  // Before the first `await`, because eviction continues.
  const snapshot = view.database.snapshot()
  try {
    const founds: Found[] = []
    for (const share of view.shares) founds.push(await findIn(view, share, snapshot, wanted, range, limits.limit))
    const found = merge(founds, range.through, limits.limit)
    const read = await fetch(view, snapshot, found, limits)
    if (found.damage === undefined || read.position < found.position) return read
    const resume = Math.min(range.through, found.position + segmentLength)
    return { ...read, damage: { error: found.damage, resume } }
  } finally {
    await snapshot.close()
  }
}

/** Merges the events of several shares, up to the position that all have reached. */
function merge(founds: readonly Found[], through: number, limit: number): Found {
  const [only] = founds
  if (only && founds.length === 1) return only
  const position = founds.reduce((least, found) => Math.min(least, found.position), through)
  const events = founds
    .flatMap(found => found.events)
    .filter(({ sequence }) => sequence <= position)
    .sort((one, other) => one.sequence - other.sequence)
    .slice(0, limit)
  if (events.length === limit) return { events, position: events.at(-1)?.sequence ?? position }
  const damaged = founds.find(found => found.damage !== undefined && found.position === position)
  return { events, position, damage: damaged?.damage }
}

/** Finds up to `limit` wanted events of one share, by its segments. */
async function findIn(
  { database }: View,
  view: ShareView,
  snapshot: Snapshot,
  wanted: TopicPredicate,
  { after, through }: SequenceRange,
  limit: number,
): Promise<Found> {
  const { share, evicted, sealed, tail } = view
  const scan = new SegmentScan(wanted)
  const budget = new TickBudget()
  const events: FoundEvent[] = []
  /** Adds events of one segment; returns whether there are enough. */
  const add = (indexes: readonly number[], sequenceOf: (index: number) => number): boolean => {
    for (const index of indexes) {
      const sequence = sequenceOf(index)
      if (sequence <= after || sequence <= evicted) continue
      if (sequence > through) return false
      events.push({ share, sequence })
      if (events.length === limit) return true
    }
    return false
  }
  let position = after
  try {
    let scanned = 0
    for await (const [last, record] of segments(database, snapshot, view, after)) {
      await budget.run(scan.addTopics(record, last))
      if (last <= after) continue
      const isEnough = add(scan.indexes(record), index => sequenceAt(record, index))
      if (isEnough) return { events, position: events.at(-1)?.sequence ?? position }
      position = Math.min(through, last)
      if (position === through || ++scanned === maxSegments) return { events, position }
    }
  } catch (error) {
    if (!isDamage(error)) throw error
    return { events, position, damage: error }
  }
  // It may be full meanwhile, and was read then.
  if (sealed > through) return { events, position: through }
  const indexes = await budget.run(scan.indexesOf(tail))
  if (add(indexes, index => tail.sequences[index] ?? 0))
    return { events, position: events.at(-1)?.sequence ?? position }
  return { events, position: through }
}

/**
 * The topics of a share's full segments with events after a position, preceded by those of the same run.
 *
 * @throws {DamagedRecord}
 */
async function* segments(
  database: Database,
  snapshot: Snapshot,
  { share, sealed, evicted }: ShareView,
  after: number,
): AsyncGenerator<[last: number, record: TopicsRecord], void, void> {
  if (sealed <= after) return
  const through = { lte: sequenceKey('i', share, sealed), snapshot }
  const begin = { gte: sequenceKey('i', share, Math.max(after, evicted) + 1), ...through, limit: 1 }
  const [entry] = await database.iterator(begin).all()
  if (!entry) {
    if (sealed <= evicted) return
    throw new DamagedRecord('a segment is missing')
  }
  const first = readTopics(entry[1], readSequence(entry[0]))
  if (first.previous > Math.max(after, evicted)) throw new DamagedRecord('a segment is missing')
  const range = { gte: sequenceKey('i', share, first.run), ...through }
  const iterator = database.iterator({ ...range, highWaterMarkBytes: iteratorBytes })
  let last = 0
  try {
    while (last < sealed) {
      const entries = await iterator.nextv(segmentsAtOnce)
      if (entries.length === 0) throw new DamagedRecord('a segment is missing')
      for (const [key, value] of entries) {
        const number = readSequence(key)
        const record = readTopics(value, number)
        const follows = last === 0 ? number === first.run : record.previous === last
        if (!follows) throw new DamagedRecord('a segment is missing')
        last = number
        yield [number, record]
      }
    }
  } finally {
    await iterator.close()
  }
}

/** Reads the found events that have not expired, up to `maxBytes`. */
async function fetch(view: View, snapshot: Snapshot, found: Found, { maxBytes, now }: ReadLimits): Promise<Read> {
  const events: Event[] = []
  let bytes = 0
  for (let at = 0; at < found.events.length; at += eventsAtOnce) {
    const batch = found.events.slice(at, at + eventsAtOnce)
    let current = batch[0]?.sequence ?? 0
    let resume = batch.at(-1)?.sequence ?? current
    try {
      const keys = batch.map(({ share, sequence }) => sequenceKey('e', share, sequence))
      const records = await view.database.getMany(keys, { snapshot })
      for (const [index, record] of records.entries()) {
        const { share, sequence } = batch[index] ?? { share: 0, sequence: current }
        current = resume = sequence
        if (!record) throw new DamagedRecord('an event is missing')
        const stored = decodeEvent(view.epoch, record, false)
        if (stored.event.sequence !== current) throw new DamagedRecord('an event has the key of another')
        if (now !== undefined && isExpired(stored.event, now)) continue
        const event = await withPayload(view.database, snapshot, stored, sequenceKey('p', share, current))
        events.push(event)
        bytes += readBytes(event)
        if (bytes >= maxBytes) return { events, position: current }
      }
    } catch (error) {
      if (!isDamage(error)) throw error
      return { events, position: current - 1, damage: { error, resume } }
    }
  }
  return { events, position: found.position }
}

async function withPayload(
  database: Database,
  snapshot: Snapshot,
  { event, large }: StoredEvent,
  key: Buffer,
): Promise<Event> {
  if (large === undefined) return event
  const payload = await database.get(key, { snapshot })
  if (payload?.length !== large) throw new DamagedRecord('a payload is missing')
  return { ...event, payload }
}

/** The position before the `count` newest wanted events; `undefined` if there are no more. */
export async function findLatest(view: View, wanted: TopicPredicate, count: number): Promise<number | undefined> {
  const sequences: number[] = []
  for (const share of view.shares) sequences.push(...(await findNewest(view, share, wanted, count + 1)))
  return sequences.sort((one, other) => other - one)[count]
}

/** The sequences of the newest wanted events of one share. */
async function findNewest(
  { database, head }: View,
  view: ShareView,
  wanted: TopicPredicate,
  count: number,
): Promise<number[]> {
  const { evicted, tail } = view
  const scan = new SegmentScan(wanted)
  const budget = new TickBudget()
  const sequences: number[] = []
  /** Adds events of one segment, the newest first; returns whether there are enough. */
  const add = (indexes: readonly number[], sequenceOf: (index: number) => number): boolean => {
    for (const index of indexes.toReversed()) {
      const sequence = sequenceOf(index)
      if (sequence <= head && sequence > evicted) sequences.push(sequence)
      if (sequences.length === count) return true
    }
    return false
  }
  if (add(await budget.run(scan.indexesOf(tail)), index => tail.sequences[index] ?? 0)) return sequences
  try {
    for await (const run of runs(database, view)) {
      for (const [last, record] of run) await budget.run(scan.addTopics(record, last))
      for (const [, record] of run.toReversed()) {
        if (add(scan.indexes(record), index => sequenceAt(record, index))) return sequences
      }
    }
  } catch (error) {
    // Reading from there reports the damage.
    if (!isDamage(error)) throw error
  }
  return sequences
}

/**
 * The topics of a share's full segments by run, the newest first, back to the oldest event.
 *
 * @throws {DamagedRecord}
 */
async function* runs(
  database: Database,
  { share, sealed, evicted }: ShareView,
): AsyncGenerator<[last: number, record: TopicsRecord][], void, void> {
  const range = { gte: sequenceKey('i', share, 0), lte: sequenceKey('i', share, sealed) }
  const iterator = database.iterator({ ...range, reverse: true, highWaterMarkBytes: iteratorBytes })
  let run: [last: number, record: TopicsRecord][] = []
  let expected = sealed
  try {
    while (expected > evicted || run.length > 0) {
      const entries = await iterator.nextv(segmentsAtOnce)
      if (entries.length === 0) throw new DamagedRecord('a segment is missing')
      for (const [key, value] of entries) {
        if (readSequence(key) !== expected) throw new DamagedRecord('a segment is missing')
        const record = readTopics(value, expected)
        run.unshift([expected, record])
        expected = record.previous
        if (record.run !== readSequence(key)) continue
        yield run
        run = []
        if (expected <= evicted) return
      }
    }
  } finally {
    await iterator.close()
  }
}

/** Reads the wanted retained messages of `topics`, without unreadable ones. */
export async function readRetainedMessages(
  { database, epoch }: Pick<View, 'database' | 'epoch'>,
  topics: readonly string[],
  isWanted: (topic: string, sequence: number) => boolean,
  onDamage: (error: unknown) => void,
): Promise<Event[]> {
  const snapshot = database.snapshot()
  try {
    const events: Event[] = []
    for (const topic of topics) {
      try {
        const record = await database.get(topicKey('r', topic), { snapshot })
        // Deleted meanwhile, by a message that is live.
        if (!record) continue
        const stored = decodeEvent(epoch, record, true)
        if (!isWanted(topic, stored.event.sequence)) continue
        events.push(await withPayload(database, snapshot, stored, topicKey('q', topic)))
      } catch (error) {
        if (!isDamage(error)) throw error
        onDamage(error)
      }
    }
    return events
  } finally {
    await snapshot.close()
  }
}
