import { type Event, isGapMarker } from '../journal/event.js'
import type { GapReason, Journal, Loss, Position } from '../journal/journal.js'
import { type TopicPredicate, topicPredicate } from '../topics/match.js'

/** What filters that join are given at once. */
export interface BackfillBatch {
  readonly events: readonly Event[]
  readonly kind: 'retained' | 'replayed'
  /** Set where what came after this place is missing. */
  readonly gap?: { readonly after: number; readonly reason: GapReason }
}

/**
 * Filters on their way into a subscription that has others already, which wait at their place meanwhile: the new ones get
 * what is retained on them, or what came since their cursor, up to that place. What the others match has been given.
 */
export class FilterBackfill {
  readonly filters: readonly string[]
  /** The place up to which these filters have everything. */
  position: number
  /** The place after which nothing is gone, of what they have been told is. */
  resumes: number
  readonly #wanted: TopicPredicate
  readonly #given: TopicPredicate
  #known: number
  #told: readonly number[] | undefined
  /** Whether what is retained, written after `#known` and up to `position`, is yet to be given. */
  #wantsRetained: boolean
  #retained: AsyncGenerator<readonly Event[], void, void> | undefined

  /**
   * @param given which topics the other filters match
   * @param place where these filters are
   * @param cursor what that comes from; `undefined` for filters that begin
   */
  constructor(filters: readonly string[], given: TopicPredicate, place: Position, cursor: string | undefined) {
    this.filters = filters
    this.#wanted = topicPredicate(filters)
    this.#given = given
    this.position = place.after
    this.resumes = Math.max(place.after, place.lost?.through ?? 0)
    this.#known = place.known
    this.#told = place.lost?.told
    this.#wantsRetained = cursor === undefined || place.gap !== undefined
  }

  /** Whether they have everything up to `through`. */
  isDone(through: number): boolean {
    return !this.#wantsRetained && this.position >= through
  }

  /** Reads the next portion of what there is up to `through`; it may have no events, and not be the last. */
  async read(journal: Journal, through: number, limit: number, maxBytes: number): Promise<BackfillBatch> {
    if (this.#wantsRetained) return { events: await this.#readRetained(journal), kind: 'retained' }
    const { filters, position: after } = this
    const told = this.#told
    const portion = await journal.read({ filters, wanted: this.#wanted, after, through, limit, maxBytes, told })
    if (portion.lost) return this.#gap('evicted', after, portion.after, portion.lost)
    const before = portion.events.findIndex(isGapMarker)
    const missing = portion.events[before]
    if (missing && before === 0) return this.#gap('missed', missing.sequence - 1, missing.sequence)
    this.position = missing ? missing.sequence - 1 : portion.position
    return { events: this.#new(missing ? portion.events.slice(0, before) : portion.events), kind: 'replayed' }
  }

  #gap(reason: GapReason, after: number, position: number, lost?: Loss): BackfillBatch {
    this.#known = after
    this.position = position
    this.resumes = Math.max(position, lost?.through ?? 0)
    this.#told = lost?.told ?? this.#told
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

  /** Lets go of what is being read. */
  close(): void {
    void this.#retained?.return().catch(() => {})
  }
}
