import { filterCovers, filtersOverlap, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { gapMarker } from './event.js'
import type { JournalBounds, Loss, ShareBounds } from './journal.js'

/*
 * A journal has one sequence and several shares with bounds of their own, so that a flood of one share's topics evicts no events of another.
 * Share 0 has the topics without a rule, share 1 the gap markers, and each rule one more.
 */

/** The share of topics without a rule, and that of gap markers. */
export const [defaultShare, gapShare] = [0, 1]

export interface ShareTopics {
  readonly filters: readonly string[]
  /** Up to this sequence, their events may be in the default share. */
  readonly since: number
}

export interface ShareExtent {
  /** Sequence of the newest evicted event; 0 for none. */
  readonly evicted: number
  /** Sequence of the oldest event; `Infinity` for none. */
  readonly oldest: number
}

/** A share that may have events for some filters. */
interface Relevance {
  readonly share: number
  /** It has none after this sequence. */
  readonly before: number
}

interface Matcher {
  readonly share: number
  readonly matches: TopicPredicate
}

/** Maps topics and filters to shares. */
export class Shares {
  /** By share, without the first two. */
  readonly topics: readonly ShareTopics[]
  readonly #bounds: JournalBounds
  /** By share. */
  readonly #shareBounds: readonly ShareBounds[]
  /** Matchers by the first level of their filter, in the order of the rules; those of a wildcard are under each level. */
  readonly #byLevel = new Map<string, Matcher[]>()
  readonly #anyLevel: Matcher[] = []
  readonly #all: readonly Relevance[]
  readonly #relevant = new WeakMap<readonly string[], readonly Relevance[]>()

  /**
   * @param stored the journal's shares, in order, including those of removed rules
   * @param head the journal's head: up to it, events of a new rule are in the default share
   */
  constructor(bounds: JournalBounds, stored: readonly ShareTopics[] = [], head = 0) {
    const { rules = [] } = bounds
    const topics = [...stored]
    const shareOfRule = rules.map(({ filters }) => {
      const known = topics.findIndex(share => sameList(share.filters, filters))
      if (known === -1) topics.push({ filters, since: head })
      return gapShare + 1 + (known === -1 ? topics.length - 1 : known)
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
    return gapShare + 1 + this.topics.length
  }

  boundsOf(share: number): ShareBounds {
    return this.#shareBounds[share] ?? this.#bounds
  }

  /** The share of a topic: that of the first matching rule. */
  shareOf(topic: string): number {
    if (topic === gapMarker.topic) return gapShare
    const end = topic.indexOf('/')
    const matchers = this.#byLevel.get(end === -1 ? topic : topic.slice(0, end)) ?? this.#anyLevel
    for (const { share, matches } of matchers) if (matches(topic)) return share
    return defaultShare
  }

  /** The shares that may have events for `filters` after `after`. */
  *relevant(filters: readonly string[] | undefined, after: number): Generator<number> {
    for (const { share, before } of this.#relevanceOf(filters)) if (after < before) yield share
  }

  /**
   * The loss of events for `filters` after `after`, beyond the known ones; `undefined` without one.
   *
   * @param extents by share
   * @param knownLosses by share, the sequence up to which losses are known
   */
  lost(
    extents: readonly ShareExtent[],
    filters: readonly string[] | undefined,
    after: number,
    knownLosses?: readonly number[],
  ): Loss | undefined {
    if (!extents.some(({ evicted }) => evicted > after)) return undefined
    let [oldest, through, complete] = [Number.POSITIVE_INFINITY, 0, Number.POSITIVE_INFINITY]
    for (const share of this.relevant(filters, after)) {
      const extent = extents[share]
      if (!extent) continue
      oldest = Math.min(oldest, extent.oldest)
      through = Math.max(through, extent.evicted)
      const known = Math.max(after, knownLosses?.[share] ?? 0)
      if (extent.evicted > known) complete = Math.min(complete, known)
    }
    if (complete === Number.POSITIVE_INFINITY) return undefined
    const resume = Math.max(after, Math.min(oldest - 1, through))
    return { resume, through, complete, evicted: extents.map(({ evicted }) => evicted) }
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
    const found: Relevance[] = [{ share: gapShare, before: Number.POSITIVE_INFINITY }]
    const before = Math.max(...filters.map(filter => this.#inDefaultBefore(filter)))
    if (before > 0) found.push({ share: defaultShare, before })
    for (const [index, topics] of this.topics.entries()) {
      const overlaps = filters.some(filter => topics.filters.some(other => filtersOverlap(filter, other)))
      if (overlaps) found.push({ share: gapShare + 1 + index, before: Number.POSITIVE_INFINITY })
    }
    return found
  }

  /** The sequence after which the default share has no events for `filter`. */
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
