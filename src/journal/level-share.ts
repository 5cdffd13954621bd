import { DamagedRecord } from '../storage/open-level.js'
import type { ShareBounds } from './journal.js'
import type { ShareView } from './level-reader.js'
import { type Database, largePayload, readSequence, type ShareState, sequenceKey } from './level-records.js'
import { decodeSizes, encodeSizes, Segment, segmentLength, TopicDictionary } from './level-segment.js'
import type { ShareExtent } from './shares.js'

export type Operation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

export interface ShareStoreOptions {
  readonly share: number
  readonly state: ShareState
  /** The events after the newest full segment. */
  readonly tail: Segment
  readonly bounds: ShareBounds
  readonly database: Database
  /** Adds a change to the current batch. */
  readonly write: (operation: Operation) => void
  readonly clock: () => number
  readonly onDamage: (error: unknown) => void
}

/** The oldest segment with events. */
interface OldestSegment {
  readonly segment: Segment
  index: number
  /** Its last sequence; `undefined` while it is incomplete. */
  last: number | undefined
}

/** Extent and segments of one share of a journal on disk, including the current batch. */
export class ShareStore implements ShareExtent {
  readonly #options: ShareStoreOptions
  readonly #dictionary = new TopicDictionary()
  #evicted: number
  #size: number
  #bytes: number
  #sealed: number
  #newest: number
  #tail: Segment
  /** `undefined` until it is read. */
  #oldest: OldestSegment | undefined
  /** Run of the oldest segment: topics of older runs are deleted. */
  #run = 0
  /** The newest written segments: `tail` follows `sealed`, and may have events of the current batch. */
  #written: { readonly sealed: number; readonly tail: Segment }

  constructor(options: ShareStoreOptions) {
    const { state, tail } = options
    this.#options = options
    this.#evicted = state.evicted
    this.#size = state.size
    this.#bytes = state.bytes
    this.#sealed = state.sealed
    this.#newest = Math.max(state.sealed, state.evicted, tail.sequences.at(-1) ?? 0)
    this.#tail = tail
    this.#written = { sealed: state.sealed, tail }
    if (state.sealed <= state.evicted) this.#oldest = { segment: tail, index: 0, last: undefined }
  }

  get evicted(): number {
    return this.#evicted
  }

  get size(): number {
    return this.#size
  }

  get oldest(): number {
    if (this.#newest <= this.#evicted) return Number.POSITIVE_INFINITY
    return this.#oldest?.segment.sequences[this.#oldest.index] ?? this.#evicted + 1
  }

  get state(): ShareState {
    const tail = this.#tail.length - this.#tail.indexAfter(this.#evicted)
    return { evicted: this.#evicted, size: this.#size, bytes: this.#bytes, sealed: this.#sealed, tail }
  }

  view(): ShareView {
    return { share: this.#options.share, evicted: this.#evicted, newest: this.#newest, ...this.#written }
  }

  push(topic: string, size: number, time: number, sequence: number): void {
    this.#size++
    this.#bytes += size
    this.#newest = sequence
    this.#tail.push(topic, size, time, sequence)
    if (this.#tail.length === segmentLength) this.#seal(sequence)
  }

  #seal(last: number): void {
    const { share, write } = this.#options
    const segment = this.#tail
    write({ type: 'put', key: sequenceKey('i', share, last), value: this.#dictionary.encode(segment, this.#sealed) })
    const meters = encodeSizes(segment, this.#dictionary.start, this.#sealed)
    write({ type: 'put', key: sequenceKey('l', share, last), value: meters })
    if (this.#oldest?.segment === segment) this.#oldest.last = last
    this.#sealed = last
    this.#tail = new Segment()
  }

  written(): void {
    this.#written = { sealed: this.#sealed, tail: this.#tail }
  }

  /** Reads the oldest segment, for `evict`. */
  async prepare(): Promise<void> {
    if (this.#oldest) return
    const { share, database } = this.#options
    if (this.#sealed <= this.#evicted) {
      this.#oldest = { segment: this.#tail, index: 0, last: undefined }
      return
    }
    const range = {
      gte: sequenceKey('l', share, this.#evicted + 1),
      lte: sequenceKey('l', share, this.#sealed),
      limit: 1,
    }
    const [[key, record] = []] = await database.iterator(range).all()
    const last = key ? readSequence(key) : this.#sealed
    const meters = decodeSizes(record, last)
    if (!meters || meters.previous > this.#evicted) {
      this.#oldest = await this.#readLost(meters?.previous ?? last)
      return
    }
    this.#oldest = { segment: meters.segment, index: meters.segment.indexAfter(this.#evicted), last }
    if (meters.run !== this.#run) await this.#deleteTopics(meters.run)
    this.#run = meters.run
  }

  /** Segment of the events up to `through` in index of an unreadable record: they are older than any bound, and so evicted. */
  async #readLost(through: number): Promise<OldestSegment> {
    const { share, database, onDamage } = this.#options
    onDamage(new DamagedRecord('the sizes of a segment are missing'))
    const range = { gte: sequenceKey('e', share, this.#evicted + 1), lte: sequenceKey('e', share, through) }
    const keys = await database.keys({ ...range, limit: segmentLength }).all()
    const segment = new Segment()
    for (const key of keys) segment.push(undefined, 0, Number.NEGATIVE_INFINITY, readSequence(key))
    const last = keys.length < segmentLength ? through : (segment.sequences.at(-1) ?? through)
    return { segment, index: 0, last }
  }

  /** Deletes topics of earlier runs, which no segment needs. */
  async #deleteTopics(run: number): Promise<void> {
    const { share, database, write } = this.#options
    const range = { gte: sequenceKey('i', share, 0), lt: sequenceKey('i', share, run) }
    for (const key of await database.keys(range).all()) write({ type: 'del', key })
  }

  /**
   * Deletes events beyond the bounds in the current batch, in the oldest segment only: at most 1024. Returns whether there were any.
   */
  evict(): boolean {
    const oldest = this.#oldest
    if (!oldest) return false
    const { share, write } = this.#options
    const { segment } = oldest
    let evicted = this.#evicted
    for (; oldest.index < segment.length && this.#isOver(segment.times[oldest.index] ?? 0); oldest.index++) {
      const size = segment.sizes[oldest.index] ?? 0
      evicted = segment.sequences[oldest.index] ?? evicted
      this.#bytes -= size
      this.#size--
      write({ type: 'del', key: sequenceKey('e', share, evicted) })
      if (size > largePayload) write({ type: 'del', key: sequenceKey('p', share, evicted) })
    }
    if (oldest.last !== undefined && oldest.index >= segment.length) {
      write({ type: 'del', key: sequenceKey('l', share, oldest.last) })
      evicted = Math.max(evicted, oldest.last)
      this.#oldest = undefined
    }
    if (evicted === this.#evicted) return false
    // Before the deletion, so that no read begins there.
    this.#evicted = evicted
    // Damaged events were never subtracted.
    if (this.#newest <= evicted) this.#size = this.#bytes = 0
    return true
  }

  #isOver(time: number): boolean {
    const { bounds, clock } = this.#options
    return this.#size > bounds.maxEvents || this.#bytes > bounds.maxBytes || time < clock() - bounds.maxAge
  }
}
