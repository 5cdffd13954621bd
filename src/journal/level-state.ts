import type { Message } from '../mqtt/message.js'
import { type Event, formatId } from './event.js'
import { type Loss, sizeOf } from './journal.js'
import type { OpenedDatabase } from './level-database.js'
import type { ShareView, View } from './level-reader.js'
import {
  emptyShare,
  encodeEvent,
  encodeRetainedEntry,
  encodeState,
  largePayload,
  sequenceKey,
  stateKey,
  topicKey,
} from './level-records.js'
import { Segment, segmentLength } from './level-segment.js'
import { type Operation, ShareStore, type ShareStoreOptions } from './level-share.js'
import { PayloadCopier, withExtras } from './payload-copies.js'
import type { RetainedMessages } from './retained-messages.js'

/** Larger payloads are written before their batch. In bytes. */
const hugePayload = 256 * 1024

/**
 * Turns messages into batches for the database, and has its state: as written (`view`), and with the current batch. Useless after a batch that
 * was not written.
 */
export class JournalStore {
  readonly retained: RetainedMessages
  readonly #opened: OpenedDatabase
  /** By share. */
  readonly #shares: readonly ShareStore[]
  /** Sequence of the newest written event. */
  #head: number
  /** Sequence of the newest event, with the current batch. */
  #last: number
  #operations: Operation[] = []
  #hugePayloads: (readonly [Buffer, Buffer])[] = []
  readonly #payloads = new PayloadCopier()

  constructor(opened: OpenedDatabase, options: Pick<ShareStoreOptions, 'clock' | 'onDamage'>) {
    const { database, state, tails, shares } = opened
    this.#opened = opened
    this.retained = opened.retained
    this.#head = state.head
    this.#last = state.head
    const write = (operation: Operation): void => {
      this.#operations.push(operation)
    }
    this.#shares = Array.from({ length: shares.count }, (_, share) => {
      const parts = { share, state: state.shares[share] ?? emptyShare, tail: tails[share] ?? new Segment() }
      return new ShareStore({ ...parts, bounds: shares.boundsOf(share), database, write, ...options })
    })
  }

  /** Sequence of the oldest event. */
  get first(): number {
    return Math.min(this.#head + 1, ...this.#shares.map(({ oldest }) => oldest))
  }

  get head(): number {
    return this.#head
  }

  get size(): number {
    return this.#shares.reduce((sum, { size }) => sum + size, 0)
  }

  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined {
    return this.#opened.shares.lost(this.#shares, filters, after, knownLosses)
  }

  /**
   * The written shares that may have events for `filters` after a position. A tail grows while it is read: events after `head` do not count.
   */
  view(filters: readonly string[] | undefined, after: number): View {
    const { database, state } = this.#opened
    const shares: ShareView[] = []
    for (const share of this.#opened.shares.relevant(filters, after)) {
      const view = this.#shares[share]?.view()
      if (view && view.newest > Math.max(after, view.evicted)) shares.push(view)
    }
    return { database, epoch: state.epoch, head: this.#head, shares }
  }

  put(message: Message, time: number): Event {
    const sequence = ++this.#last
    const { topic, qos } = message
    const payload = this.#payloads.of(message.payload)
    const id = formatId(this.#opened.state.epoch, sequence)
    const parts = { id, sequence, topic, time, payload, qos, retained: false }
    const event: Event = withExtras(parts, message, this.#payloads)
    const record = encodeEvent(event)
    const size = sizeOf(message)
    const share = this.#opened.shares.shareOf(topic)
    this.#put(sequenceKey('e', share, sequence), record)
    if (payload.length > hugePayload) this.#hugePayloads.push([sequenceKey('p', share, sequence), payload])
    else if (payload.length > largePayload) this.#put(sequenceKey('p', share, sequence), payload)
    this.#retain(message, event, record, size)
    this.#shares[share]?.push(topic, size, time, sequence)
    return event
  }

  #retain(message: Message, { sequence, topic, payload, expires }: Event, record: Buffer, size: number): void {
    const change = this.retained.note(message, sequence)
    if (change === 'keep') {
      this.#put(topicKey('r', topic), record)
      this.#put(topicKey('n', topic), encodeRetainedEntry({ sequence, size, expires }))
      if (payload.length > largePayload) this.#put(topicKey('q', topic), payload)
      else this.#delete(topicKey('q', topic))
    } else if (change === 'remove') {
      this.#deleteRetained(topic)
    }
  }

  #deleteRetained(topic: string): void {
    for (const kind of ['r', 'n', 'q'] as const) this.#delete(topicKey(kind, topic))
  }

  /** Deletes some expired retained messages in the current batch. Returns whether there were any. */
  removeExpired(now: number): boolean {
    const topics = this.retained.removeExpired(now, segmentLength)
    for (const topic of topics) this.#deleteRetained(topic)
    return topics.length > 0
  }

  /** Reads the segments for `evict`. */
  async prepare(): Promise<void> {
    for (const share of this.#shares) await share.prepare()
  }

  /**
   * Deletes events beyond the bounds in the current batch, in the oldest segment of each share only. Returns whether there were any.
   */
  evict(): boolean {
    let evicted = false
    for (const share of this.#shares) evicted = share.evict() || evicted
    return evicted
  }

  /**
   * Huge payloads, to be written before the batch, one by one. They are not found without it; in it they would be copied synchronously, several
   * times while it grows.
   */
  takeHugePayloads(): readonly (readonly [Buffer, Buffer])[] {
    const ahead = this.#hugePayloads
    this.#hugePayloads = []
    return ahead
  }

  /** The batch, to be written atomically. */
  take(): Operation[] {
    const { epoch } = this.#opened.state
    const shares = this.#shares.map(({ state }) => state)
    this.#put(stateKey, encodeState({ epoch, head: this.#last, shares }))
    const operations = this.#operations
    this.#operations = []
    return operations
  }

  written(): void {
    this.#head = this.#last
    for (const share of this.#shares) share.written()
  }

  #put(key: Buffer, value: Buffer): void {
    this.#operations.push({ type: 'put', key, value })
  }

  #delete(key: Buffer): void {
    this.#operations.push({ type: 'del', key })
  }
}
