import { Qlobber } from 'qlobber'

/*
 * Topic filters as in MQTT 3.1.1 §4.7: `+` takes one level, also an empty one; `#` takes the rest, the parent level
 * included; neither, at the start of a filter, matches a topic that begins with `$` [MQTT-4.7.2-1].
 */

/** The values of one filter. */
interface Group<T> {
  readonly filter: string
  /** Whether the filter leaves out topics that begin with `$`. */
  readonly plain: boolean
  readonly values: Set<T>
}

/** More levels than anybody's filter has; Aedes takes as many. What walks the trie goes as deep as filters are long. */
export const maxFilterLevels = 100

/** How many levels a topic or a filter has. */
export function levelsOf(topic: string): number {
  let levels = 1
  for (let at = topic.indexOf('/'); at !== -1; at = topic.indexOf('/', at + 1)) levels++
  return levels
}

/** Whether a filter has no more than `maxFilterLevels`. */
export function isShallow(filter: string): boolean {
  return levelsOf(filter) <= maxFilterLevels
}

/**
 * Values by topic filter: finds all whose filter matches a topic.
 *
 * The trie holds one group for each different filter, so that the time to find what wants a topic depends on the topic's
 * levels alone, and somebody can leave a filter that ten thousand have in the same time as any other.
 */
export class TopicIndex<T> {
  readonly #groups = new Map<string, Group<T>>()
  readonly #trie = new Qlobber<Group<T>>({
    separator: '/',
    wildcard_one: '+',
    wildcard_some: '#',
    match_empty_levels: true,
    // A topic may have as many as it has bytes, which is no reason to throw; filters are bounded where they come in.
    max_words: Number.POSITIVE_INFINITY,
  })

  /** @param filter a valid one (`topicFilterProblem`) that is shallow (`isShallow`) */
  add(filter: string, value: T): void {
    let group = this.#groups.get(filter)
    if (!group) {
      group = { filter, plain: startsWithWildcard(filter), values: new Set() }
      this.#groups.set(filter, group)
      this.#trie.add(filter, group)
    }
    group.values.add(value)
  }

  /** Forgets `value` under `filter`; nothing happens where it is not there. */
  remove(filter: string, value: T): void {
    const group = this.#groups.get(filter)
    if (!group?.values.delete(value) || group.values.size > 0) return
    this.#groups.delete(filter)
    this.#trie.remove(filter, group)
  }

  /** The values under exactly this filter; `undefined` where there is none. */
  get(filter: string): ReadonlySet<T> | undefined {
    return this.#groups.get(filter)?.values
  }

  /** All filters, with their values. */
  filters(): Iterable<{ readonly filter: string; readonly values: ReadonlySet<T> }> {
    return this.#groups.values()
  }

  /** The values of each filter that matches; what was added under several of them comes several times. */
  match(topic: string): ReadonlySet<T>[] {
    const found: ReadonlySet<T>[] = []
    if (this.#groups.size === 0) return found
    const system = topic.startsWith('$')
    for (const { plain, values } of this.#trie.match(topic)) if (!(system && plain)) found.push(values)
    return found
  }
}

/** Whether a topic is wanted. */
export type TopicPredicate = (topic: string) => boolean

/** All topics, as no filter has them. */
export const everyTopic: TopicPredicate = () => true

/** A predicate for the topics that any of `filters` matches, which are valid. */
export function topicPredicate(filters: readonly string[]): TopicPredicate {
  const predicates = filters.map(filterPredicate)
  const [only] = predicates
  if (only && predicates.length === 1) return only
  return topic => predicates.some(predicate => predicate(topic))
}

function filterPredicate(filter: string): TopicPredicate {
  if (filter === '#') return topic => !topic.startsWith('$')
  const levels = filter.split('/')
  if (!levels.includes('+')) {
    if (levels.at(-1) !== '#') return topic => topic === filter
    const [below, parent] = [filter.slice(0, -1), filter.slice(0, -2)]
    return topic => topic.startsWith(below) || topic === parent
  }
  const plain = startsWithWildcard(filter)
  return topic => !(plain && topic.startsWith('$')) && matchesLevels(levels, topic)
}

/** Walks over the topic without taking it apart: this is asked for each topic of a journal. */
function matchesLevels(levels: readonly string[], topic: string): boolean {
  let start = 0
  for (const level of levels) {
    if (level === '#') return true
    if (start > topic.length) return false
    const slash = topic.indexOf('/', start)
    const end = slash === -1 ? topic.length : slash
    if (level !== '+' && !(level.length === end - start && topic.startsWith(level, start))) return false
    // Past the end of the topic where this was its last level.
    start = end + 1
  }
  return start > topic.length
}

function startsWithWildcard(filter: string): boolean {
  return filter.startsWith('+') || filter.startsWith('#')
}
