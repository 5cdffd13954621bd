import type { Event } from '../event.js'
import type { SequenceRange } from '../journal.js'
import type { TopicPredicate } from '../topics.js'
import { type Database, isDamage } from './level-database.js'
import { DamagedRecord, decodeEvent, numberKey, readNumberKey, type StoredEvent, topicKey } from './level-records.js'
import { readTopics, type Segment, SegmentScan, segmentOf, segmentStart, type TopicsRecord } from './level-segment.js'

type Snapshot = ReturnType<Database['snapshot']>

/** Segments that one read looks through at most: some milliseconds. */
const scanBudget = 64
/** After how many milliseconds of looking others have a turn: a thousand filters take a hundred times longer than one. */
const longestLook = 3
/** Segments that are fetched at a time. */
const segmentsAtOnce = 32
const iteratorBytes = 256 * 1024
/** Events that are fetched at a time; each has at most `largePayload` bytes besides its topic. */
const eventsAtOnce = 32

/** What a journal was at one moment. */
export interface View {
  readonly database: Database
  readonly epoch: string
  readonly first: number
  readonly head: number
  readonly tail: Segment
}

/** Places of a journal: those that are wanted, and how far was looked. */
interface Found {
  readonly sequences: readonly number[]
  readonly position: number
  /** Set where the segment that begins after `position` cannot be read. */
  readonly damage?: unknown
}

/** The turns of the event loop that something takes which may be long. */
class Turns {
  #since = performance.now()

  /** Takes all steps, and ends the turn after one where it has been long. */
  async take<T>(steps: Generator<void, T, void>): Promise<T> {
    for (;;) {
      const { value, done } = steps.next()
      if (done === true) return value
      if (performance.now() - this.#since < longestLook) continue
      await new Promise(setImmediate)
      this.#since = performance.now()
    }
  }
}

/** What was read, up to `position`. With `damage`, what follows cannot be read, up to `resume`. */
export interface Read {
  readonly events: readonly Event[]
  readonly position: number
  readonly damage?: { readonly error: unknown; readonly resume: number }
}

interface ReadLimits {
  readonly limit: number
  readonly maxBytes: number
}

/** Reads the events in `range` that are wanted, of what there is at this moment. */
export async function readEvents(
  view: View,
  wanted: TopicPredicate,
  range: SequenceRange,
  limits: ReadLimits,
): Promise<Read> {
  // Made before anything is awaited: trimming goes on, and this reads what was there.
  const snapshot = view.database.snapshot()
  try {
    const found = await find(view, snapshot, wanted, range, limits.limit)
    const read = await fetch(view, snapshot, found, limits.maxBytes)
    if (found.damage === undefined || read.position < found.position) return read
    const resume = Math.min(range.through, segmentStart(segmentOf(found.position + 1) + 1) - 1)
    return { ...read, damage: { error: found.damage, resume } }
  } finally {
    await snapshot.close()
  }
}

/** Looks for up to `limit` wanted events, without reading one. */
async function find(
  { database, first, head, tail }: View,
  snapshot: Snapshot,
  wanted: TopicPredicate,
  { after, through }: SequenceRange,
  limit: number,
): Promise<Found> {
  const scan = new SegmentScan(wanted)
  const turns = new Turns()
  const sequences: number[] = []
  /** Takes the places of one segment, and tells whether there are enough. */
  const take = (start: number, places: readonly number[]): boolean => {
    for (const place of places) {
      const sequence = start + place
      if (sequence <= after || sequence < first || sequence > through) continue
      sequences.push(sequence)
      if (sequences.length === limit) return true
    }
    return false
  }
  const tailSegment = segmentOf(head + 1)
  const from = segmentOf(after + 1)
  const until = Math.min(tailSegment, segmentOf(through) + 1, from + scanBudget)
  let position = after
  try {
    for await (const [number, record] of segments(database, snapshot, from, until)) {
      await turns.take(scan.learn(record, number))
      if (number < from) continue
      if (take(segmentStart(number), scan.places(record))) return { sequences, position: sequences.at(-1) ?? position }
      position = Math.min(through, segmentStart(number + 1) - 1)
    }
  } catch (error) {
    if (!isDamage(error)) throw error
    return { sequences, position, damage: error }
  }
  if (until < tailSegment || position >= through) return { sequences, position }
  const places = await turns.take(scan.placesOf(tail))
  if (take(segmentStart(tailSegment), places)) return { sequences, position: sequences.at(-1) ?? position }
  return { sequences, position: through }
}

/**
 * What is known of the topics of the segments from `from` on, and before them those of the same run.
 *
 * @throws {DamagedRecord}
 */
async function* segments(
  database: Database,
  snapshot: Snapshot,
  from: number,
  until: number,
): AsyncGenerator<[number: number, record: TopicsRecord], void, void> {
  if (from >= until) return
  const first = await database.get(numberKey('t', from), { snapshot })
  if (!first) throw new DamagedRecord('a segment is missing')
  let number = readTopics(first, from).run
  const range = { gte: numberKey('t', number), lt: numberKey('t', until) }
  const iterator = database.iterator({ ...range, snapshot, highWaterMarkBytes: iteratorBytes })
  try {
    while (number < until) {
      const entries = await iterator.nextv(segmentsAtOnce)
      if (entries.length === 0) throw new DamagedRecord('a segment is missing')
      for (const [key, record] of entries) {
        if (readNumberKey(key) !== number) throw new DamagedRecord('a segment is missing')
        yield [number, readTopics(record, number)]
        number++
      }
    }
  } finally {
    await iterator.close()
  }
}

/** Reads what was found, until it has `maxBytes`. */
async function fetch(view: View, snapshot: Snapshot, found: Found, maxBytes: number): Promise<Read> {
  const events: Event[] = []
  let bytes = 0
  for (let at = 0; at < found.sequences.length; at += eventsAtOnce) {
    const sequences = found.sequences.slice(at, at + eventsAtOnce)
    let current = sequences[0] ?? 0
    let resume = sequences.at(-1) ?? current
    try {
      const keys = sequences.map(sequence => numberKey('e', sequence))
      const records = await view.database.getMany(keys, { snapshot })
      for (const [index, record] of records.entries()) {
        current = sequences[index] ?? current
        resume = current
        if (!record) throw new DamagedRecord('an event is missing')
        const stored = decodeEvent(view.epoch, record, false)
        if (stored.event.sequence !== current) throw new DamagedRecord('an event is at the place of another')
        const event = await withPayload(view.database, snapshot, stored, numberKey('p', current))
        events.push(event)
        bytes += event.payload.length
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

/** The place from which on there are no more than the `count` newest wanted events. */
export async function findLatest(
  { database, first, head, tail }: View,
  wanted: TopicPredicate,
  count: number,
): Promise<number> {
  const scan = new SegmentScan(wanted)
  const turns = new Turns()
  let left = count
  /** The place before the last wanted one, where this segment has enough. */
  const take = (start: number, places: readonly number[]): number | undefined => {
    for (const place of places.toReversed()) {
      const sequence = start + place
      if (sequence > head || sequence < first) continue
      if (--left < 0) return sequence
    }
    return undefined
  }
  const tailSegment = segmentOf(head + 1)
  const inTail = take(segmentStart(tailSegment), await turns.take(scan.placesOf(tail)))
  if (inTail !== undefined) return inTail
  try {
    for await (const run of runs(database, segmentOf(first), tailSegment)) {
      for (const [number, record] of run) {
        await turns.take(scan.learn(record, number))
      }
      for (const [number, record] of run.toReversed()) {
        const place = take(segmentStart(number), scan.places(record))
        if (place !== undefined) return place
      }
    }
  } catch (error) {
    // Whoever reads from there finds the damage, and is told.
    if (!isDamage(error)) throw error
  }
  return first - 1
}

/**
 * What is known of the topics of the segments before `until`, run by run, the newest first, until that of `oldest`.
 *
 * @throws {DamagedRecord}
 */
async function* runs(
  database: Database,
  oldest: number,
  until: number,
): AsyncGenerator<[number: number, record: TopicsRecord][], void, void> {
  const range = { gte: numberKey('t', 0), lt: numberKey('t', until) }
  const iterator = database.iterator({ ...range, reverse: true, highWaterMarkBytes: iteratorBytes })
  let run: [number: number, record: TopicsRecord][] = []
  let number = until - 1
  try {
    while (number >= oldest || run.length > 0) {
      const entries = await iterator.nextv(segmentsAtOnce)
      if (entries.length === 0) throw new DamagedRecord('a segment is missing')
      for (const [key, value] of entries) {
        if (readNumberKey(key) !== number) throw new DamagedRecord('a segment is missing')
        const record = readTopics(value, number)
        run.unshift([number, record])
        if (record.run === number) {
          yield run
          run = []
          if (number <= oldest) return
        }
        number--
      }
    }
  } finally {
    await iterator.close()
  }
}

/** Reads the retained messages of `topics` that were written up to `through`; leaves out what cannot be read. */
export async function readRetainedMessages(
  { database, epoch }: Pick<View, 'database' | 'epoch'>,
  topics: readonly string[],
  through: number,
  onDamage: (error: unknown) => void,
): Promise<Event[]> {
  const snapshot = database.snapshot()
  try {
    const events: Event[] = []
    for (const topic of topics) {
      try {
        const record = await database.get(topicKey('r', topic), { snapshot })
        // Deleted, or replaced, since it was asked for: then what did that is news.
        if (!record) continue
        const stored = decodeEvent(epoch, record, true)
        if (stored.event.sequence > through) continue
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
