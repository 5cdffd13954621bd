import type { Logger } from '../base/log.js'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { isGapMarker } from '../journal/event.js'
import { type Journal, type Position, resolveCursor } from '../journal/journal.js'
import { matchCost } from '../topics/match.js'
import type { EventCache } from './event-cache.js'
import type { FilterBackfill } from './filter-backfill.js'
import type { Subscriber } from './subscriber.js'

/** What one subscriber is given before it is the next one's turn; one event may have more bytes. */
const [portionEvents, portionBytes] = [256, 256 * 1024]
/** Portions that are read from the journal at the same time. */
const readsAtOnce = 4
/**
 * How often an event in memory is held against a filter in one turn of the event loop, some 3 ms at the worst; what each
 * subscriber counts besides; and each of its filters with which the hub does not find it yet.
 */
const [turnTests, turnSubscriber, turnFilter] = [8192, 16, 4]

/** What catching up needs. */
export interface ReplayOptions {
  readonly journal: Journal
  readonly recent: EventCache
  readonly log: Logger
  readonly slices?: SliceMonitor | undefined
  /** The newest event of which everybody who is live was told. */
  readonly position: () => number
  /** Has a subscriber told of what comes from now on. */
  readonly join: (subscriber: Subscriber) => void
}

/**
 * Gives subscribers what is retained and what they have missed, in portions, one after the other: so that nobody waits
 * for somebody else's million events, and what comes live has its turn in between. A subscriber whose sink has no room
 * has no turn until there is.
 *
 * Where a subscriber has everything up to the hub's position, it joins in the same turn of the event loop in which that
 * is seen: nothing can come in between.
 */
export class ReplayScheduler {
  readonly #options: ReplayOptions
  /** Those who have a turn, in the order in which they came. */
  readonly #ready = new Set<Subscriber>()
  /** Those for whom something has to be read. */
  readonly #waiting = new Set<Subscriber>()
  #reading = 0
  #scheduled = false

  constructor(options: ReplayOptions) {
    this.#options = options
  }

  add(subscriber: Subscriber): void {
    this.#ready.add(subscriber)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#run)
  }

  delete(subscriber: Subscriber): void {
    this.#ready.delete(subscriber)
    this.#waiting.delete(subscriber)
  }

  readonly #run = (): void => {
    this.#options.slices?.begin('replay')
    this.#scheduled = false
    let left = turnTests
    for (const subscriber of this.#ready) {
      if (left <= 0) {
        this.add(subscriber)
        break
      }
      this.#ready.delete(subscriber)
      subscriber.applyChanges(this.#locate)
      left -= turnSubscriber + turnFilter * subscriber.unlisted
      if (this.#isRecent(subscriber)) left -= this.#giveRecent(subscriber)
      else this.#waiting.add(subscriber)
    }
    this.#read()
  }

  readonly #locate = (cursor: string, filters: readonly string[]): Position => {
    return resolveCursor(this.#options.journal, cursor, filters)
  }

  /** Whether it can do with what is in memory. What the journal has let go of is not given to anybody from there. */
  #isRecent({ state, position, last, joining, filters }: Subscriber): boolean {
    const { recent, journal } = this.#options
    if (state !== 'replay' || last !== undefined || joining) return false
    return recent.covers(position) && !journal.lost(filters, position)
  }

  /** Gives a portion of what is in memory, and tells how many tests that took. */
  #giveRecent(subscriber: Subscriber): number {
    const { recent } = this.#options
    const from = subscriber.position
    if (from >= this.#options.position()) {
      this.#goOn(subscriber)
      return 0
    }
    const wants = subscriber.wants()
    const cost = matchCost(subscriber.filters)
    // A socket may have a thousand filters, and nobody else has a turn meanwhile.
    const events = Math.min(portionEvents, Math.ceil(turnTests / cost))
    const end = Math.min(this.#options.position(), from + events)
    const data: Buffer[] = []
    let bytes = 0
    let position = from
    while (position < end && bytes < portionBytes && data.length < subscriber.room) {
      const event = recent.at(position + 1)
      if (event && isGapMarker(event)) {
        if (position === from) subscriber.gap('missed', from, from + 1)
        break
      }
      position++
      if (!event || !wants(event.topic)) continue
      const encoded = recent.encode(event, subscriber.encode)
      data.push(encoded)
      bytes += encoded.length
    }
    if (position > from) subscriber.give(data, 'replayed', position)
    this.#goOn(subscriber)
    return (position - from) * cost
  }

  #read(): void {
    for (const subscriber of this.#waiting) {
      if (this.#reading === readsAtOnce) return
      this.#waiting.delete(subscriber)
      this.#reading++
      void this.#giveRead(subscriber).finally(() => {
        this.#reading--
        this.#read()
      })
    }
  }

  async #giveRead(subscriber: Subscriber): Promise<void> {
    try {
      if (subscriber.last !== undefined) await this.#place(subscriber, subscriber.last)
      else if (subscriber.joining) await this.#giveJoining(subscriber, subscriber.joining)
      else if (subscriber.state === 'retained') await this.#giveRetained(subscriber)
      else if (subscriber.state === 'replay') await this.#giveReplay(subscriber)
    } catch (error) {
      this.#options.log.error({ err: error }, 'a subscriber is cut off, because the journal cannot be read')
      subscriber.end('journal-unavailable')
    }
    this.#goOn(subscriber)
  }

  async #place(subscriber: Subscriber, last: number): Promise<void> {
    const place = await this.#options.journal.latest(subscriber.filters, last)
    subscriber.position = Math.min(place, this.#options.position())
    // It has no cursor: nothing that is gone is missing.
    subscriber.told = this.#options.journal.lost(subscriber.filters, subscriber.position)?.told
    subscriber.last = undefined
  }

  async #giveRetained(subscriber: Subscriber): Promise<void> {
    const { known, position, filters, encode } = subscriber
    subscriber.retained ??= this.#options.journal.retained(filters, { after: known, through: position })
    const { value: events, done } = await subscriber.retained.next()
    if (subscriber.closed) return
    if (done) subscriber.placed()
    else {
      subscriber.give(events.map(encode), 'retained', position)
      subscriber.wroteApart(events)
    }
  }

  async #giveReplay(subscriber: Subscriber): Promise<void> {
    const { filters, position: after, room, encode, told } = subscriber
    const limit = Math.min(portionEvents, room)
    const through = this.#options.position()
    const query = { filters, wanted: subscriber.wants(), after, through, limit, maxBytes: portionBytes, told }
    const portion = await this.#options.journal.read(query)
    if (subscriber.closed) return
    const before = portion.events.findIndex(isGapMarker)
    const missing = portion.events[before]
    if (portion.lost) subscriber.gap('evicted', after, portion.after, portion.lost)
    else if (!missing) subscriber.give(portion.events.map(encode), 'replayed', portion.position)
    else if (before === 0) subscriber.gap('missed', missing.sequence - 1, missing.sequence)
    else subscriber.give(portion.events.slice(0, before).map(encode), 'replayed', missing.sequence - 1)
  }

  /** Gives filters that join what is retained, and what they have missed, up to where the others are. */
  async #giveJoining(subscriber: Subscriber, joining: FilterBackfill): Promise<void> {
    const { position, encode } = subscriber
    const portion = await joining.read(this.#options.journal, position, portionEvents, portionBytes)
    if (subscriber.closed) return
    if (portion.gap) subscriber.joiningGap(joining, portion.gap.reason, subscriber.idOf(portion.gap.after))
    subscriber.give(portion.events.map(encode), portion.kind, position)
    subscriber.wroteApart(portion.events)
    if (joining.isDone(position) && !subscriber.closed) subscriber.joined(joining)
  }

  #goOn(subscriber: Subscriber): void {
    if (subscriber.closed) return
    if (
      subscriber.state === 'replay' &&
      subscriber.position >= this.#options.position() &&
      subscriber.last === undefined &&
      !subscriber.changing
    ) {
      this.#options.join(subscriber)
    } else if (!subscriber.blocked) this.add(subscriber)
  }
}
