import { DamagedRecord } from '../storage/open-level.js'
import type { TopicPredicate } from '../topics/match.js'

/*
 * The index of the journal: which topics the events have, without the events. It goes by time and not by topic, so that
 * it costs one record for a thousand events to write, serves filters with wildcards anywhere, and finds what it finds in
 * order.
 *
 * Topics are numbered in runs of up to 32 segments, and written down in the first segment of the run that has them. With
 * them written in each segment, the search for the last thousand events of one topic, out of a million of a thousand
 * topics, took 70 to 105 ms; so it takes 10 to 35.
 */

/** Events of a segment. */
export const segmentLength = 1024

/** Bounds of a run: segments, and bytes of topics, of which those who write and read keep all in memory. */
const [runSegments, runBytes] = [32, 1024 ** 2]

/** The number of an event without a topic. */
const noTopic = 0xffff

/** The run and the previous segment, by their last sequence, and the first sequence. */
const headerLength = 3 * 8
const numbersEnd = headerLength + segmentLength * 2

/**
 * The events of one segment of a share: in memory for the newest, which is filled, and for the oldest, which is trimmed.
 * A place is an index from 0 on.
 */
export class Segment {
  readonly topics: (string | undefined)[] = []
  readonly sizes: number[] = []
  readonly times: number[] = []
  readonly sequences: number[] = []

  push(topic: string | undefined, size: number, time: number, sequence: number): void {
    this.topics.push(topic)
    this.sizes.push(size)
    this.times.push(time)
    this.sequences.push(sequence)
  }

  get length(): number {
    return this.sequences.length
  }

  /** The first place of an event after `sequence`; `length` where there is none. */
  placeAfter(sequence: number): number {
    let [low, high] = [0, this.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.sequences[middle] ?? 0) > sequence) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** The numbers that topics have in the run that is being written. */
export class TopicDictionary {
  /** The last sequence of the run's first segment. */
  #start = 0
  #segments = Number.POSITIVE_INFINITY
  #numbers = new Map<string, number>()
  #bytes = 0

  /**
   * The record of a full segment's topics, as the next of this run, or the first of another.
   *
   * @param previous the last sequence of the segment before it; 0 for none
   */
  encode(segment: Segment, previous: number): Buffer {
    const { topics, sequences } = segment
    const full = this.#bytes > runBytes || this.#numbers.size + segmentLength > noTopic
    if (full || this.#segments >= runSegments) this.#begin(sequences.at(-1) ?? 0)
    this.#segments++
    const parts: Buffer[] = []
    const numbers = new Uint16Array(topics.length)
    for (const [place, topic] of topics.entries()) {
      numbers[place] = topic === undefined ? noTopic : (this.#numbers.get(topic) ?? this.#add(topic, parts))
    }
    const header = encodeHeader(this.#start, previous, sequences[0] ?? 0)
    return Buffer.concat([header, Buffer.from(numbers.buffer), encodeSequences(sequences), ...parts])
  }

  /** The last sequence of the run's first segment. */
  get start(): number {
    return this.#start
  }

  #begin(start: number): void {
    this.#start = start
    this.#segments = 0
    this.#numbers = new Map()
    this.#bytes = 0
  }

  #add(topic: string, parts: Buffer[]): number {
    const length = Buffer.byteLength(topic)
    const part = Buffer.allocUnsafe(2 + length)
    part.writeUInt16LE(length, 0)
    part.write(topic, 2)
    parts.push(part)
    this.#bytes += part.length
    const number = this.#numbers.size
    this.#numbers.set(topic, number)
    return number
  }
}

/** The topics of a segment. */
export interface TopicsRecord {
  /** The last sequence of the first segment of its run. */
  readonly run: number
  /** The last sequence of the segment before it; 0 for none. */
  readonly previous: number
  /** The topics that come here for the first time in the run. */
  readonly topics: Buffer
  /** The number of each event's topic. */
  readonly numbers: Uint16Array
  /** The first sequence, and those of all where they do not follow each other. */
  readonly first: number
  readonly sequences: Buffer | undefined
}

/** The sequence of the event at a place. */
export function sequenceAt({ first, sequences }: Pick<TopicsRecord, 'first' | 'sequences'>, place: number): number {
  return sequences ? sequences.readDoubleLE(place * 8) : first + place
}

/** @throws {DamagedRecord} where this is not the record of the segment whose last sequence is `last` */
export function readTopics(record: Buffer, last: number): TopicsRecord {
  if (record.length < numbersEnd) throw new DamagedRecord('a segment is cut off')
  const { run, previous, first } = decodeHeader(record)
  if (!Number.isSafeInteger(run) || run > last || previous >= first) throw new DamagedRecord('a segment of no run')
  const sequencesEnd = numbersEnd + sequencesLength(first, last)
  if (record.length < sequencesEnd) throw new DamagedRecord('a segment is cut off')
  return {
    ...{ run, previous, first },
    numbers: wordsOf(record.subarray(headerLength, numbersEnd)),
    sequences: sequencesEnd > numbersEnd ? record.subarray(numbersEnd, sequencesEnd) : undefined,
    topics: record.subarray(sequencesEnd),
  }
}

/** The header of the records of a segment. */
export function encodeHeader(run: number, previous: number, first: number): Buffer {
  const header = Buffer.allocUnsafe(headerLength)
  header.writeDoubleLE(run, 0)
  header.writeDoubleLE(previous, 8)
  header.writeDoubleLE(first, 16)
  return header
}

function decodeHeader(record: Buffer): { run: number; previous: number; first: number } {
  return { run: record.readDoubleLE(0), previous: record.readDoubleLE(8), first: record.readDoubleLE(16) }
}

/** Nothing for sequences that follow each other: so it is where nothing is written to other shares. */
function encodeSequences(sequences: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(sequencesLength(sequences[0] ?? 0, sequences.at(-1) ?? 0))
  if (bytes.length > 0) for (const [place, sequence] of sequences.entries()) bytes.writeDoubleLE(sequence, place * 8)
  return bytes
}

function sequencesLength(first: number, last: number): number {
  return last - first === segmentLength - 1 ? 0 : segmentLength * 8
}

/** Numbers of two bytes, in this machine's order, as they are written: to read them one by one took a third of a search. */
function wordsOf(bytes: Buffer): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes)
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length / 2)
}

/** Topics that are held against a predicate in one step; of a hundred levels each, and a thousand filters, 2 ms. */
const topicsAtOnce = 128

/**
 * Finds the places of wanted topics in the segments of one run after the other. What takes long goes in steps, so that
 * others have a turn in between.
 */
export class SegmentScan {
  readonly #wanted: TopicPredicate
  /** By number, whether the topic is wanted. */
  #flags = new Uint8Array(noTopic + 1)
  #known = 0
  #any = false

  constructor(wanted: TopicPredicate) {
    this.#wanted = wanted
  }

  /**
   * Learns a segment's topics, which has to be done for all segments of a run in order.
   *
   * @throws {DamagedRecord}
   */
  *learn({ run, topics }: TopicsRecord, last: number): Generator<void, void, void> {
    if (run === last) {
      this.#flags.fill(0, 0, this.#known)
      this.#known = 0
      this.#any = false
    }
    let at = 0
    while (at < topics.length) {
      const start = at + 2
      const end = start + (start <= topics.length ? topics.readUInt16LE(at) : 0)
      if (start > topics.length || end > topics.length) throw new DamagedRecord('a topic is cut off')
      const wanted = this.#wanted(topics.toString('utf8', start, end))
      if (this.#known === noTopic) throw new DamagedRecord('too many topics')
      this.#flags[this.#known++] = wanted ? 1 : 0
      this.#any ||= wanted
      at = end
      if (this.#known % topicsAtOnce === 0) yield
    }
    yield
  }

  /** The wanted places of a segment, once its topics are known. */
  places({ numbers }: TopicsRecord): number[] {
    const found: number[] = []
    if (!this.#any) return found
    const flags = this.#flags
    for (let place = 0; place < segmentLength; place++) if (flags[numbers[place] ?? noTopic] === 1) found.push(place)
    return found
  }

  /** The wanted places of the segment that is being filled, of what is in it now. */
  *placesOf({ topics }: Segment): Generator<void, number[], void> {
    const found: number[] = []
    const known = new Map<string, boolean>()
    for (const [place, topic] of topics.slice().entries()) {
      if (topic === undefined) continue
      let wanted = known.get(topic)
      if (wanted === undefined) {
        wanted = this.#wanted(topic)
        known.set(topic, wanted)
        if (known.size % topicsAtOnce === 0) yield
      }
      if (wanted) found.push(place)
    }
    return found
  }
}

/** The record of the sizes and times of a full segment's events. */
export function encodeMeters({ sizes, times, sequences }: Segment, run: number, previous: number): Buffer {
  const meters = Buffer.allocUnsafe(sizes.length * 12)
  for (const [place, size] of sizes.entries()) {
    meters.writeUInt32LE(size, place * 12)
    meters.writeDoubleLE(times[place] ?? 0, place * 12 + 4)
  }
  return Buffer.concat([encodeHeader(run, previous, sequences[0] ?? 0), meters, encodeSequences(sequences)])
}

/** The segment of which `encodeMeters` made a record; `undefined` for anything else. */
export function decodeMeters(
  record: Buffer | undefined,
  last: number,
): { segment: Segment; run: number; previous: number } | undefined {
  const metersEnd = headerLength + segmentLength * 12
  if (!record || record.length < metersEnd) return undefined
  const { run, previous, first } = decodeHeader(record)
  if (record.length !== metersEnd + sequencesLength(first, last)) return undefined
  const sequences = record.length > metersEnd ? record.subarray(metersEnd) : undefined
  const segment = new Segment()
  for (let place = 0; place < segmentLength; place++) {
    const at = headerLength + place * 12
    segment.push(
      undefined,
      record.readUInt32LE(at),
      record.readDoubleLE(at + 4),
      sequenceAt({ first, sequences }, place),
    )
  }
  return { segment, run, previous }
}
