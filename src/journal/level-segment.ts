import { DamagedRecord } from '../storage/open-level.js'
import type { TopicPredicate } from '../topics/match.js'

/*
 * The index of the journal: the topics of its events. It is ordered by time and not by topic, so that it takes one record for a thousand
 * events, works for any wildcard, and finds events in order.
 *
 * Topics are numbered in runs of up to 32 segments, and stored in the first segment of the run that has them.
 */

/** Events of a segment. */
export const segmentLength = 1024

/** Bounds of a run: segments, and bytes of topics, all of which are in memory for writing and reading. */
const [runSegments, runBytes] = [32, 1024 ** 2]

/** The number of an event without a topic. */
const noTopic = 0xffff

/** The run and the previous segment, by their last sequence, and the first sequence. */
const headerLength = 3 * 8
const numbersEnd = headerLength + segmentLength * 2

/**
 * One segment of a share's events. The newest, which is incomplete, and the oldest, which is being evicted, are in memory.
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

  /** Index of the first event after `sequence`; `length` without one. */
  indexAfter(sequence: number): number {
    let [low, high] = [0, this.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.sequences[middle] ?? 0) > sequence) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** Topic numbers of the current run. */
export class TopicDictionary {
  /** Last sequence of the run's first segment. */
  #start = 0
  #segments = Number.POSITIVE_INFINITY
  #numbers = new Map<string, number>()
  #bytes = 0

  /**
   * Encodes a full segment's topics, as the next of this run, or the first of a new one.
   *
   * @param previous last sequence of the segment before it; 0 for none
   */
  encode(segment: Segment, previous: number): Buffer {
    const { topics, sequences } = segment
    const full = this.#bytes > runBytes || this.#numbers.size + segmentLength > noTopic
    if (full || this.#segments >= runSegments) this.#begin(sequences.at(-1) ?? 0)
    this.#segments++
    const parts: Buffer[] = []
    const numbers = new Uint16Array(topics.length)
    for (const [index, topic] of topics.entries()) {
      numbers[index] = topic === undefined ? noTopic : (this.#numbers.get(topic) ?? this.#add(topic, parts))
    }
    const header = encodeHeader(this.#start, previous, sequences[0] ?? 0)
    return Buffer.concat([header, Buffer.from(numbers.buffer), encodeSequences(sequences), ...parts])
  }

  /** Last sequence of the run's first segment. */
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

/** Decoded topics of a segment. */
export interface TopicsRecord {
  /** Last sequence of the first segment of its run. */
  readonly run: number
  /** Last sequence of the segment before it; 0 for none. */
  readonly previous: number
  readonly topics: Buffer
  readonly numbers: Uint16Array
  /** First sequence, and all sequences if they are not consecutive. */
  readonly first: number
  readonly sequences: Buffer | undefined
}

/** The sequence of the event at an index. */
export function sequenceAt({ first, sequences }: Pick<TopicsRecord, 'first' | 'sequences'>, index: number): number {
  return sequences ? sequences.readDoubleLE(index * 8) : first + index
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
    numbers: uint16ArrayOf(record.subarray(headerLength, numbersEnd)),
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

/** Empty for consecutive sequences, as where no other share has events. */
function encodeSequences(sequences: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(sequencesLength(sequences[0] ?? 0, sequences.at(-1) ?? 0))
  if (bytes.length > 0) for (const [index, sequence] of sequences.entries()) bytes.writeDoubleLE(sequence, index * 8)
  return bytes
}

function sequencesLength(first: number, last: number): number {
  return last - first === segmentLength - 1 ? 0 : segmentLength * 8
}

/** Numbers of two bytes in this machine's byte order, without reading them one by one. */
function uint16ArrayOf(bytes: Buffer): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes)
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length / 2)
}

/** Topics compared with a predicate in one step; 2 ms with a hundred levels and a thousand filters. */
const topicsAtOnce = 128

/**
 * Finds wanted topics in segments, run by run. Long work is done in steps.
 */
export class SegmentScan {
  readonly #wanted: TopicPredicate
  /** Whether a topic is wanted, by its number. */
  #flags = new Uint8Array(noTopic + 1)
  #known = 0
  #any = false

  constructor(wanted: TopicPredicate) {
    this.#wanted = wanted
  }

  /**
   * Reads a segment's new topics. Call it for all segments of a run, in order.
   *
   * @throws {DamagedRecord}
   */
  *addTopics({ run, topics }: TopicsRecord, last: number): Generator<void, void, void> {
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

  /** Indexes of wanted events of a segment, after `addTopics`. */
  indexes({ numbers }: TopicsRecord): number[] {
    const found: number[] = []
    if (!this.#any) return found
    const flags = this.#flags
    for (let index = 0; index < segmentLength; index++) if (flags[numbers[index] ?? noTopic] === 1) found.push(index)
    return found
  }

  /** Indexes of wanted events of the incomplete segment, as it is now. */
  *indexesOf({ topics }: Segment): Generator<void, number[], void> {
    const found: number[] = []
    const known = new Map<string, boolean>()
    for (const [index, topic] of topics.slice().entries()) {
      if (topic === undefined) continue
      let wanted = known.get(topic)
      if (wanted === undefined) {
        wanted = this.#wanted(topic)
        known.set(topic, wanted)
        if (known.size % topicsAtOnce === 0) yield
      }
      if (wanted) found.push(index)
    }
    return found
  }
}

/** Encodes the sizes and times of a full segment's events. */
export function encodeSizes({ sizes, times, sequences }: Segment, run: number, previous: number): Buffer {
  const sizesAndTimes = Buffer.allocUnsafe(sizes.length * 12)
  for (const [index, size] of sizes.entries()) {
    sizesAndTimes.writeUInt32LE(size, index * 12)
    sizesAndTimes.writeDoubleLE(times[index] ?? 0, index * 12 + 4)
  }
  return Buffer.concat([encodeHeader(run, previous, sequences[0] ?? 0), sizesAndTimes, encodeSequences(sequences)])
}

/** Decodes a record of `encodeSizes`; `undefined` for any other. */
export function decodeSizes(
  record: Buffer | undefined,
  last: number,
): { segment: Segment; run: number; previous: number } | undefined {
  const sizesEnd = headerLength + segmentLength * 12
  if (!record || record.length < sizesEnd) return undefined
  const { run, previous, first } = decodeHeader(record)
  if (record.length !== sizesEnd + sequencesLength(first, last)) return undefined
  const sequences = record.length > sizesEnd ? record.subarray(sizesEnd) : undefined
  const segment = new Segment()
  for (let index = 0; index < segmentLength; index++) {
    const at = headerLength + index * 12
    segment.push(
      undefined,
      record.readUInt32LE(at),
      record.readDoubleLE(at + 4),
      sequenceAt({ first, sequences }, index),
    )
  }
  return { segment, run, previous }
}
