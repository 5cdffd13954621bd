import { DamagedRecord } from '../storage/open-level.js'
import type { ShareBounds } from './journal.js'
import type { Database } from './level-database.js'
import type { ShareView } from './level-reader.js'
import { largePayload, readSequence, type ShareState, sequenceKey } from './level-records.js'
import { decodeMeters, encodeMeters, Segment, segmentLength, TopicDictionary } from './level-segment.js'
import type { ShareExtent } from './shares.js'

/** One change of the database. */
export type Operation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

/** Options of a share's ledger. */
export interface ShareStoreOptions {
  readonly share: number
  readonly state: ShareState
  /** The events after the newest full segment. */
  readonly tail: Segment
  readonly bounds: ShareBounds
  readonly database: Database
  /** Adds to the batch that is being made. */
  readonly write: (operation: Operation) => void
  readonly clock: () => number
  /** Told of what cannot be read. */
  readonly onDamage: (error: unknown) => void
}

/** The oldest segment that has events. */
interface OldestSegment {
  readonly segment: Segment
  /** The place of the oldest event. */
  place: number
  /** Its last sequence; `undefined` while it is filled. */
  last: number | undefined
}

/** The extent of one share of a journal on disk, and its segments; with the batch that is being made. */
export class ShareStore implements ShareExtent {
  readonly #options: ShareStoreOptions
  readonly #numbering = new TopicDictionary()
  #evicted: number
  #size: number
  #bytes: number
  #sealed: number
  #newest: number
  #filling: Segment
  /** `undefined` until it is read. */
  #oldest: OldestSegment | undefined
  /** The run of the oldest segment: of older ones there are no topics. */
  #run = 0
  /** The newest segments that are written: `tail` follows `sealed`, and may have events of the batch that is being made. */
  #written: { readonly sealed: number; readonly tail: Segment }

  constructor(options: ShareStoreOptions) {
    const { state, tail } = options
    this.#options = options
    this.#evicted = state.evicted
    this.#size = state.size
    this.#bytes = state.bytes
    this.#sealed = state.sealed
    this.#newest = Math.max(state.sealed, state.evicted, tail.sequences.at(-1) ?? 0)
    this.#filling = tail
    this.#written = { sealed: state.sealed, tail }
    if (state.sealed <= state.evicted) this.#oldest = { segment: tail, place: 0, last: undefined }
  }

  get evicted(): number {
    return this.#evicted
  }

  get size(): number {
    return this.#size
  }

  get oldest(): number {
    if (this.#newest <= this.#evicted) return Number.POSITIVE_INFINITY
    return this.#oldest?.segment.sequences[this.#oldest.place] ?? this.#evicted + 1
  }

  get state(): ShareState {
    const tail = this.#filling.length - this.#filling.placeAfter(this.#evicted)
    return { evicted: this.#evicted, size: this.#size, bytes: this.#bytes, sealed: this.#sealed, tail }
  }

  /** The share as it is written. */
  view(): ShareView {
    return { share: this.#options.share, evicted: this.#evicted, newest: this.#newest, ...this.#written }
  }

  /** Adds an event that comes after all others. */
  push(topic: string, size: number, time: number, sequence: number): void {
    this.#size++
    this.#bytes += size
    this.#newest = sequence
    this.#filling.push(topic, size, time, sequence)
    if (this.#filling.length === segmentLength) this.#seal(sequence)
  }

  #seal(last: number): void {
    const { share, write } = this.#options
    const segment = this.#filling
    write({ type: 'put', key: sequenceKey('i', share, last), value: this.#numbering.encode(segment, this.#sealed) })
    const meters = encodeMeters(segment, this.#numbering.start, this.#sealed)
    write({ type: 'put', key: sequenceKey('l', share, last), value: meters })
    if (this.#oldest?.segment === segment) this.#oldest.last = last
    this.#sealed = last
    this.#filling = new Segment()
  }

  /** The batch is written. */
  written(): void {
    this.#written = { sealed: this.#sealed, tail: this.#filling }
  }

  /** Reads the oldest segment, which `evict` has to know. */
  async prepare(): Promise<void> {
    if (this.#oldest) return
    const { share, database } = this.#options
    if (this.#sealed <= this.#evicted) {
      this.#oldest = { segment: this.#filling, place: 0, last: undefined }
      return
    }
    const range = {
      gte: sequenceKey('l', share, this.#evicted + 1),
      lte: sequenceKey('l', share, this.#sealed),
      limit: 1,
    }
    const [[key, record] = []] = await database.iterator(range).all()
    const last = key ? readSequence(key) : this.#sealed
    const meters = decodeMeters(record, last)
    if (!meters || meters.previous > this.#evicted) {
      this.#oldest = await this.#readLost(meters?.previous ?? last)
      return
    }
    this.#oldest = { segment: meters.segment, place: meters.segment.placeAfter(this.#evicted), last }
    if (meters.run !== this.#run) await this.#forgetTopics(meters.run)
    this.#run = meters.run
  }

  /** Makes a segment of events up to `through` whose record cannot be read: older than any bound, so that they go. */
  async #readLost(through: number): Promise<OldestSegment> {
    const { share, database, onDamage } = this.#options
    onDamage(new DamagedRecord('the sizes of a segment are not there'))
    const range = { gte: sequenceKey('e', share, this.#evicted + 1), lte: sequenceKey('e', share, through) }
    const keys = await database.keys({ ...range, limit: segmentLength }).all()
    const segment = new Segment()
    for (const key of keys) segment.push(undefined, 0, Number.NEGATIVE_INFINITY, readSequence(key))
    const last = keys.length < segmentLength ? through : (segment.sequences.at(-1) ?? through)
    return { segment, place: 0, last }
  }

  /** The topics of a segment are needed as long as there is one of its run. */
  async #forgetTopics(run: number): Promise<void> {
    const { share, database, write } = this.#options
    const range = { gte: sequenceKey('i', share, 0), lt: sequenceKey('i', share, run) }
    for (const key of await database.keys(range).all()) write({ type: 'del', key })
  }

  /**
   * Has the batch delete what is over the bounds, in the oldest segment alone: 1024 events at most, so that it is no
   * stall. Tells whether there was anything.
   */
  evict(): boolean {
    const oldest = this.#oldest
    if (!oldest) return false
    const { share, write } = this.#options
    const { segment } = oldest
    let evicted = this.#evicted
    for (; oldest.place < segment.length && this.#isOver(segment.times[oldest.place] ?? 0); oldest.place++) {
      const size = segment.sizes[oldest.place] ?? 0
      evicted = segment.sequences[oldest.place] ?? evicted
      this.#bytes -= size
      this.#size--
      write({ type: 'del', key: sequenceKey('e', share, evicted) })
      if (size > largePayload) write({ type: 'del', key: sequenceKey('p', share, evicted) })
    }
    if (oldest.last !== undefined && oldest.place >= segment.length) {
      write({ type: 'del', key: sequenceKey('l', share, oldest.last) })
      evicted = Math.max(evicted, oldest.last)
      this.#oldest = undefined
    }
    if (evicted === this.#evicted) return false
    // Before it is deleted, so that nobody begins to read what will not be there.
    this.#evicted = evicted
    // What was lost to damage was never subtracted.
    if (this.#newest <= evicted) this.#size = this.#bytes = 0
    return true
  }

  #isOver(time: number): boolean {
    const { bounds, clock } = this.#options
    return this.#size > bounds.maxEvents || this.#bytes > bounds.maxBytes || time < clock() - bounds.maxAge
  }
}
