import { filterCovers, filtersOverlap, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { gapMarker } from './event.js'
import type { JournalBounds, Loss, ShareBounds } from './journal.js'

/*
 * A journal has one numbering and several shares, each with bounds of its own: so that a flood of one share's topics evicts
 * nothing of another's. Share 0 has all topics that no other share has, share 1 the holes, and each rule one more.
 */

/** The share of all topics without a rule, and that of holes. */
export const [defaultShare, holeShare] = [0, 1]

/** The topics of a share that has a rule. */
export interface ShareTopics {
  readonly filters: readonly string[]
  /** Topics of these filters up to this sequence may be in the default share. */
  readonly since: number
}

/** The events of a share that are there, and those that are gone. */
export interface ShareExtent {
  /** The sequence of the newest event of the share that was evicted; 0 for none. */
  readonly evicted: number
  /** The sequence of the oldest event that is there; `Infinity` for none. */
  readonly oldest: number
}

/** A share that may have topics that some filters match. */
interface Relevance {
  readonly share: number
  /** It has none of them after this sequence. */
  readonly before: number
}

interface Matcher {
  readonly share: number
  readonly matches: TopicPredicate
}

/** Decides which share a topic belongs to, and which shares are of concern to a subscriber. */
export class Shares {
  /** By share; the first two have no rules, and are not in it. */
  readonly topics: readonly ShareTopics[]
  readonly #bounds: JournalBounds
  /** By share. */
  readonly #shareBounds: readonly ShareBounds[]
  /** Matchers of rules by the first level of their filter, in the order of the rules; a wildcard's are under each. */
  readonly #byLevel = new Map<string, Matcher[]>()
  readonly #anyLevel: Matcher[] = []
  readonly #all: readonly Relevance[]
  readonly #relevant = new WeakMap<readonly string[], readonly Relevance[]>()

  /**
   * @param stored the shares that the journal has already, in their order; those of rules that are gone stay
   * @param head the journal's head: up to there, topics of a new rule are in the default share
   */
  constructor(bounds: JournalBounds, stored: readonly ShareTopics[] = [], head = 0) {
    const { rules = [] } = bounds
    const topics = [...stored]
    const shareOfRule = rules.map(({ filters }) => {
      const known = topics.findIndex(share => sameList(share.filters, filters))
      if (known === -1) topics.push({ filters, since: head })
      return holeShare + 1 + (known === -1 ? topics.length - 1 : known)
    })
    this.#bounds = bounds
    this.topics = topics
    this.#shareBounds = Array.from({ length: this.count }, (_, share) => rules[shareOfRule.indexOf(share)] ?? bounds)
    this.#all = this.#shareBounds.map((_, share) => ({ share, before: Number.POSITIVE_INFINITY }))
    for (const [index, { filters }] of rules.entries()) {
      for (const filter of filters) this.#addMatcher(filter, shareOfRule[index] ?? defaultShare)
    }
  }

  get count(): number {
    return holeShare + 1 + this.topics.length
  }

  boundsOf(share: number): ShareBounds {
    return this.#shareBounds[share] ?? this.#bounds
  }

  /** The share that a message of `topic` is written to: that of the first rule that matches. */
  shareOf(topic: string): number {
    if (topic === gapMarker.topic) return holeShare
    const end = topic.indexOf('/')
    const matchers = this.#byLevel.get(end === -1 ? topic : topic.slice(0, end)) ?? this.#anyLevel
    for (const { share, matches } of matchers) if (matches(topic)) return share
    return defaultShare
  }

  /** The shares that may have topics of `filters`, of events after `after`. */
  *relevant(filters: readonly string[] | undefined, after: number): Generator<number> {
    for (const { share, before } of this.#relevanceOf(filters)) if (after < before) yield share
  }

  /**
   * Tells whether anything of `filters` after `after` is gone, beside what the subscriber has been told of.
   *
   * @param extents by share
   * @param told by share, the sequence up to which the subscriber knows that events may be gone
   */
  lost(
    extents: readonly ShareExtent[],
    filters: readonly string[] | undefined,
    after: number,
    told?: readonly number[],
  ): Loss | undefined {
    if (!extents.some(({ evicted }) => evicted > after)) return undefined
    let [oldest, through, complete] = [Number.POSITIVE_INFINITY, 0, Number.POSITIVE_INFINITY]
    for (const share of this.relevant(filters, after)) {
      const extent = extents[share]
      if (!extent) continue
      oldest = Math.min(oldest, extent.oldest)
      through = Math.max(through, extent.evicted)
      const known = Math.max(after, told?.[share] ?? 0)
      if (extent.evicted > known) complete = Math.min(complete, known)
    }
    if (complete === Number.POSITIVE_INFINITY) return undefined
    const resume = Math.max(after, Math.min(oldest - 1, through))
    return { resume, through, complete, told: extents.map(({ evicted }) => evicted) }
  }

  #addMatcher(filter: string, share: number): void {
    const matcher = { share, matches: topicPredicate([filter]) }
    const [level = ''] = filter.split('/')
    if (level === '+' || level === '#') {
      for (const matchers of this.#byLevel.values()) matchers.push(matcher)
      this.#anyLevel.push(matcher)
      return
    }
    const matchers = this.#byLevel.get(level) ?? [...this.#anyLevel]
    matchers.push(matcher)
    this.#byLevel.set(level, matchers)
  }

  #relevanceOf(filters: readonly string[] | undefined): readonly Relevance[] {
    if (!filters) return this.#all
    let relevance = this.#relevant.get(filters)
    if (!relevance) {
      relevance = this.#findRelevant(filters)
      this.#relevant.set(filters, relevance)
    }
    return relevance
  }

  #findRelevant(filters: readonly string[]): Relevance[] {
    const found: Relevance[] = [{ share: holeShare, before: Number.POSITIVE_INFINITY }]
    const before = Math.max(...filters.map(filter => this.#inDefaultBefore(filter)))
    if (before > 0) found.push({ share: defaultShare, before })
    for (const [index, topics] of this.topics.entries()) {
      const overlaps = filters.some(filter => topics.filters.some(other => filtersOverlap(filter, other)))
      if (overlaps) found.push({ share: holeShare + 1 + index, before: Number.POSITIVE_INFINITY })
    }
    return found
  }

  /** The sequence after which no topic of `filter` is in the default share. */
  #inDefaultBefore(filter: string): number {
    const { rules = [] } = this.#bounds
    for (const { filters } of rules) {
      if (!filters.some(outer => filterCovers(outer, filter))) continue
      return this.topics.find(topics => sameList(topics.filters, filters))?.since ?? Number.POSITIVE_INFINITY
    }
    return Number.POSITIVE_INFINITY
  }
}

function sameList(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && some.every((text, index) => text === others[index])
}
