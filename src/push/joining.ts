import type { Event } from './event.js'
import type { Journal, Place } from './journal.js'
import type { TopicPredicate } from './topics.js'

/** What filters that join are given at once. */
export interface JoiningPortion {
  readonly events: readonly Event[]
  readonly kind: 'retained' | 'replayed'
  /** Set where what came after this place is gone. */
  readonly gap?: { readonly after: number }
}

/**
 * Filters on their way into a subscription that has others already, which wait at their place meanwhile: the new ones get
 * what is retained on them, or what came since their cursor, up to that place. What the others match has been given.
 */
export class Joining {
  readonly filters: readonly string[]
  /** The place up to which these filters have everything. */
  position: number
  readonly #given: TopicPredicate
  #known: number
  /** Whether what is retained, written after `#known` and up to `position`, is yet to be given. */
  #wantsRetained: boolean
  #retained: AsyncGenerator<readonly Event[], void, void> | undefined

  /**
   * @param given which topics the other filters match
   * @param place where these filters are
   * @param cursor what that comes from; `undefined` for filters that begin
   */
  constructor(filters: readonly string[], given: TopicPredicate, place: Place, cursor: string | undefined) {
    this.filters = filters
    this.#given = given
    this.position = place.after
    this.#known = place.known
    this.#wantsRetained = cursor === undefined || place.gap !== undefined
  }

  /** Whether they have everything up to `through`. */
  isDone(through: number): boolean {
    return !this.#wantsRetained && this.position >= through
  }

  /** Reads the next portion of what there is up to `through`; it may have no events, and not be the last. */
  async read(journal: Journal, through: number, limit: number, maxBytes: number): Promise<JoiningPortion> {
    if (this.#wantsRetained) return { events: await this.#readRetained(journal), kind: 'retained' }
    const { filters, position: after } = this
    const portion = await journal.read({ filters, after, through, limit, maxBytes })
    if (portion.after > after) {
      this.#known = after
      this.position = portion.after
      this.#wantsRetained = true
      return { events: [], kind: 'replayed', gap: { after } }
    }
    this.position = portion.position
    return { events: this.#new(portion.events), kind: 'replayed' }
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
