import { type Event, isGapMarker } from '../journal/event.js'
import type { GapReason, Journal, Loss, Position } from '../journal/journal.js'
import { type TopicPredicate, topicPredicate } from '../topics/match.js'

/** A batch for filters that are added. */
export interface BackfillBatch {
  readonly events: readonly Event[]
  readonly kind: 'retained' | 'replayed'
  /** Set where events after this sequence are missing. */
  readonly gap?: { readonly after: number; readonly reason: GapReason }
}

/**
 * Replays to filters that are added to a subscription: their retained messages, or the events since their cursor, up to the position of the
 * others. Events that the other filters match are left out.
 */
export class FilterBackfill {
  readonly filters: readonly string[]
  /** The sequence up to which these filters have everything. */
  position: number
  /** The sequence after which no event is missing, from the losses reported to the sink. */
  resumes: number
  readonly #wanted: TopicPredicate
  readonly #given: TopicPredicate
  #known: number
  #knownLosses: readonly number[] | undefined
  /** Whether the retained messages written after `#known` and up to `position` are still to be read. */
  #wantsRetained: boolean
  #retained: AsyncGenerator<readonly Event[], void, void> | undefined

  /**
   * @param given matches the topics of the other filters
   * @param start the position of these filters
   * @param cursor of these filters; `undefined` for none
   */
  constructor(filters: readonly string[], given: TopicPredicate, start: Position, cursor: string | undefined) {
    this.filters = filters
    this.#wanted = topicPredicate(filters)
    this.#given = given
    this.position = start.after
    this.resumes = Math.max(start.after, start.lost?.through ?? 0)
    this.#known = start.known
    this.#knownLosses = start.lost?.evicted
    this.#wantsRetained = cursor === undefined || start.gap !== undefined
  }

  /** Whether they have everything up to `through`. */
  isDone(through: number): boolean {
    return !this.#wantsRetained && this.position >= through
  }

  /** Reads the next batch up to `through`; it may be empty without being the last. */
  async read(journal: Journal, through: number, limit: number, maxBytes: number): Promise<BackfillBatch> {
    if (this.#wantsRetained) return { events: await this.#readRetained(journal), kind: 'retained' }
    const { filters, position: after } = this
    const knownLosses = this.#knownLosses
    const batch = await journal.read({ filters, wanted: this.#wanted, after, through, limit, maxBytes, knownLosses })
    if (batch.lost) return this.#gap('evicted', after, batch.after, batch.lost)
    const before = batch.events.findIndex(isGapMarker)
    const missing = batch.events[before]
    if (missing && before === 0) return this.#gap('missed', missing.sequence - 1, missing.sequence)
    this.position = missing ? missing.sequence - 1 : batch.position
    return { events: this.#new(missing ? batch.events.slice(0, before) : batch.events), kind: 'replayed' }
  }

  #gap(reason: GapReason, after: number, position: number, lost?: Loss): BackfillBatch {
    this.#known = after
    this.position = position
    this.resumes = Math.max(position, lost?.through ?? 0)
    this.#knownLosses = lost?.evicted ?? this.#knownLosses
    this.#wantsRetained = true
    return { events: [], kind: 'replayed', gap: { after, reason } }
  }

  async #readRetained(journal: Journal): Promise<readonly Event[]> {
    this.#retained ??= journal.retained(this.filters, { after: this.#known, through: this.position })
    const { value: events, done } = await this.#retained.next()
    if (!done) return this.#new(events)
    this.#retained = undefined
    this.#wantsRetained = false
    return []
  }

  #new(events: readonly Event[]): readonly Event[] {
    return events.filter(({ topic }) => !this.#given(topic))
  }

  /** Stops reading. */
  close(): void {
    void this.#retained?.return().catch(() => {})
  }
}
