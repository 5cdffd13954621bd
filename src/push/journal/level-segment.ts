import type { TopicPredicate } from '../topics.js'
import { DamagedRecord } from './level-records.js'

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

/** The number of an event that was gone before its segment was full. */
const noTopic = 0xffff

const headerLength = 8
const numbersEnd = headerLength + segmentLength * 2

/** The number of the segment that an event is in; sequences begin at 1. */
export function segmentOf(sequence: number): number {
  return Math.floor((sequence - 1) / segmentLength)
}

/** The sequence of the first event of a segment. */
export function segmentStart(segment: number): number {
  return segment * segmentLength + 1
}

/**
 * What is known of the events of one segment: in memory for the newest, which is filled, and for the oldest, which is
 * trimmed. A place is `sequence - segmentStart`.
 */
export class Segment {
  readonly topics: (string | undefined)[] = []
  readonly sizes: number[] = []
  readonly times: number[] = []

  /** @param gone how many places at its start are of events that are gone */
  constructor(gone = 0) {
    for (let place = 0; place < gone; place++) this.push(undefined, 0, 0)
  }

  push(topic: string | undefined, size: number, time: number): void {
    this.topics.push(topic)
    this.sizes.push(size)
    this.times.push(time)
  }

  get length(): number {
    return this.topics.length
  }
}

/** The numbers that topics have in the run that is being written. */
export class Numbering {
  /** The first segment of the run. */
  #start = Number.NEGATIVE_INFINITY
  #numbers = new Map<string, number>()
  #bytes = 0

  /** What a full segment says of its topics, as the next of this run, or the first of another. */
  encode(number: number, { topics }: Segment): Buffer {
    const full = this.#bytes > runBytes || this.#numbers.size + segmentLength > noTopic
    if (full || number >= this.#start + runSegments) this.#begin(number)
    const parts: Buffer[] = []
    const numbers = new Uint16Array(topics.length)
    for (const [place, topic] of topics.entries()) {
      numbers[place] = topic === undefined ? noTopic : (this.#numbers.get(topic) ?? this.#add(topic, parts))
    }
    const header = Buffer.allocUnsafe(headerLength)
    header.writeDoubleLE(this.#start, 0)
    return Buffer.concat([header, Buffer.from(numbers.buffer), ...parts])
  }

  get start(): number {
    return this.#start
  }

  #begin(number: number): void {
    this.#start = number
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

/** What a segment says of its topics. */
export interface TopicsRecord {
  /** The first segment of its run. */
  readonly run: number
  /** The topics that come here for the first time in the run. */
  readonly topics: Buffer
  /** The number of each event's topic. */
  readonly numbers: Uint16Array
}

/** @throws {DamagedRecord} where this is not what segment `number` says */
export function readTopics(record: Buffer, number: number): TopicsRecord {
  if (record.length < numbersEnd) throw new DamagedRecord('a segment is cut off')
  const run = record.readDoubleLE(0)
  const sound = Number.isSafeInteger(run) && run <= number && run > number - runSegments
  if (!sound) throw new DamagedRecord('a segment of no run')
  return { run, numbers: wordsOf(record.subarray(headerLength, numbersEnd)), topics: record.subarray(numbersEnd) }
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
  *learn({ run, topics }: TopicsRecord, number: number): Generator<void, void, void> {
    if (run === number) {
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

/** What a segment says of the sizes and times of its events, and where its run begins. */
export function encodeMeters({ sizes, times }: Segment, run: number): Buffer {
  const record = Buffer.allocUnsafe(8 + sizes.length * 12)
  record.writeDoubleLE(run, 0)
  for (const [place, size] of sizes.entries()) {
    record.writeUInt32LE(size, 8 + place * 12)
    record.writeDoubleLE(times[place] ?? 0, 8 + place * 12 + 4)
  }
  return record
}

/** What `encodeMeters` wrote of a full segment; `undefined` for anything else. */
export function decodeMeters(record: Buffer | undefined): { segment: Segment; run: number } | undefined {
  if (record?.length !== 8 + segmentLength * 12) return undefined
  const segment = new Segment()
  for (let at = 8; at < record.length; at += 12) {
    segment.push(undefined, record.readUInt32LE(at), record.readDoubleLE(at + 4))
  }
  return { segment, run: record.readDoubleLE(0) }
}
