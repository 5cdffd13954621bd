import { type Event, formatId, type Message } from '../event.js'
import { type JournalBounds, sizeOf } from '../journal.js'
import type { OpenedDatabase } from './level-database.js'
import type { View } from './level-reader.js'
import {
  DamagedRecord,
  encodeEvent,
  encodeRetainedEntry,
  encodeState,
  largePayload,
  numberKey,
  readNumberKey,
  stateKey,
  topicKey,
} from './level-records.js'
import {
  decodeMeters,
  encodeMeters,
  Numbering,
  Segment,
  segmentLength,
  segmentOf,
  segmentStart,
} from './level-segment.js'
import { OwnPayloads } from './own-payload.js'
import type { RetainedMessages } from './retained-messages.js'

/** One change of the database. */
export type Operation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

/** What a ledger needs besides what is in the database. */
export interface LedgerOptions {
  readonly bounds: JournalBounds
  readonly clock: () => number
  /** Told of what cannot be read. */
  readonly onDamage: (error: unknown) => void
}

/**
 * Turns messages into batches for the database, and knows what is in it: as it is written (`view`), and as it will be
 * with the batch that is being made. Where a batch is not written after all, the ledger is of no more use.
 */
export class Ledger {
  readonly retained: RetainedMessages
  readonly #opened: OpenedDatabase
  readonly #options: LedgerOptions
  #first: number
  /** The newest event that is written. */
  #head: number
  /** The newest event, with those of the batch that is being made. */
  #last: number
  #bytes: number
  /** The segment that the next event goes to. */
  #filling: Segment
  /** The segment that follows `#head`; where that is not the same, it is full. */
  #tail: Segment
  readonly #numbering = new Numbering()
  /** The segment of `#first`, as far as it was read. */
  #oldest: { readonly number: number; readonly segment: Segment } | undefined
  /** The first segment of which there may be the topics. */
  #topicsFrom: number | undefined
  #operations: Operation[] = []
  readonly #payloads = new OwnPayloads()

  constructor(opened: OpenedDatabase, options: LedgerOptions) {
    this.#opened = opened
    this.#options = options
    this.retained = opened.retained
    this.#first = opened.state.first
    this.#head = opened.state.head
    this.#last = opened.state.head
    this.#bytes = opened.state.bytes
    this.#filling = opened.tail
    this.#tail = opened.tail
  }

  get first(): number {
    return this.#first
  }

  get head(): number {
    return this.#head
  }

  /** What is written. Its tail grows while it is read; what is after its head is not for the reader. */
  view(): View {
    const { database, state } = this.#opened
    return { database, epoch: state.epoch, first: this.#first, head: this.#head, tail: this.#tail }
  }

  /** Adds a message to the batch. */
  put(message: Message, time: number): Event {
    const sequence = ++this.#last
    const { topic, qos } = message
    const payload = this.#payloads.of(message.payload)
    const id = formatId(this.#opened.state.epoch, sequence)
    const event: Event = { id, sequence, topic, time, payload, qos, retained: false }
    const record = encodeEvent(event)
    const size = sizeOf(message)
    this.#put(numberKey('e', sequence), record)
    if (payload.length > largePayload) this.#put(numberKey('p', sequence), payload)
    this.#retain(message, event, record, size)
    this.#bytes += size
    this.#filling.push(topic, size, time)
    if (this.#filling.length === segmentLength) this.#seal(segmentOf(sequence))
    return event
  }

  #retain(message: Message, { sequence, topic, payload }: Event, record: Buffer, size: number): void {
    const change = this.retained.note(message, sequence)
    if (change === 'keep') {
      this.#put(topicKey('r', topic), record)
      this.#put(topicKey('n', topic), encodeRetainedEntry(sequence, size))
      if (payload.length > largePayload) this.#put(topicKey('q', topic), payload)
      else this.#delete(topicKey('q', topic))
    } else if (change === 'remove') {
      for (const kind of ['r', 'n', 'q'] as const) this.#delete(topicKey(kind, topic))
    }
  }

  #seal(segment: number): void {
    this.#put(numberKey('t', segment), this.#numbering.encode(segment, this.#filling))
    this.#put(numberKey('m', segment), encodeMeters(this.#filling, this.#numbering.start))
    this.#filling = new Segment()
  }

  /** Reads what `evict` has to know of the oldest segment, and what is added to it later. */
  async readOldest(): Promise<Segment> {
    const number = segmentOf(this.#first)
    if (number === segmentOf(this.#last + 1)) return this.#filling
    if (this.#oldest?.number === number) return this.#oldest.segment
    const { database } = this.#opened
    const meters = decodeMeters(await database.get(numberKey('m', number)))
    if (!meters) this.#options.onDamage(new DamagedRecord('what is known of a segment is not there'))
    this.#oldest = { number, segment: meters?.segment ?? lost() }
    // The topics of a segment are needed as long as there is one of its run.
    const run = meters?.run ?? number
    this.#topicsFrom ??= await this.#readTopicsFrom(run)
    for (; this.#topicsFrom < run; this.#topicsFrom++) this.#delete(numberKey('t', this.#topicsFrom))
    return this.#oldest.segment
  }

  async #readTopicsFrom(run: number): Promise<number> {
    const range = { gte: numberKey('t', 0), lt: numberKey('t', run), limit: 1 }
    const [key] = await this.#opened.database.keys(range).all()
    return key ? readNumberKey(key) : run
  }

  /**
   * Has the batch delete what is over the bounds, in the oldest segment alone: 1024 events at most, so that it is no
   * stall. Tells whether there was anything.
   */
  evict(oldest: Segment): boolean {
    const before = this.#first
    const number = segmentOf(before)
    const start = segmentStart(number)
    const end = Math.min(this.#last, start + segmentLength - 1)
    let first = before
    for (; first <= end && this.#isOver(first, oldest.times[first - start] ?? 0); first++) {
      const size = oldest.sizes[first - start] ?? 0
      this.#bytes -= size
      this.#delete(numberKey('e', first))
      if (size > largePayload) this.#delete(numberKey('p', first))
    }
    if (first === start + segmentLength) this.#delete(numberKey('m', number))
    // What was lost to damage was never subtracted.
    if (first > this.#last) this.#bytes = 0
    // Before it is deleted, so that nobody begins to read what will not be there.
    this.#first = first
    return first > before
  }

  #isOver(first: number, time: number): boolean {
    const { maxEvents, maxBytes, maxAge } = this.#options.bounds
    return this.#last - first + 1 > maxEvents || this.#bytes > maxBytes || time < this.#options.clock() - maxAge
  }

  /** The batch, to be written all or nothing. */
  take(): Operation[] {
    const { epoch } = this.#opened.state
    this.#put(stateKey, encodeState({ epoch, first: this.#first, head: this.#last, bytes: this.#bytes }))
    const operations = this.#operations
    this.#operations = []
    return operations
  }

  /** The batch is written. */
  written(): void {
    this.#head = this.#last
    this.#tail = this.#filling
  }

  #put(key: Buffer, value: Buffer): void {
    this.#operations.push({ type: 'put', key, value })
  }

  #delete(key: Buffer): void {
    this.#operations.push({ type: 'del', key })
  }
}

/** A segment of which nothing is known: older than any bound, so that it goes. */
function lost(): Segment {
  const segment = new Segment()
  for (let place = 0; place < segmentLength; place++) segment.push(undefined, 0, Number.NEGATIVE_INFINITY)
  return segment
}
