import { maxFilterLevels } from './filter-problems.js'
import { FilterSet } from './filter-set.js'

/*
 * Topic filters as in MQTT 3.1.1 §4.7: `+` takes one level, also an empty one; `#` takes the rest, the parent level
 * included; neither, at the start of a filter, matches a topic that begins with `$` [MQTT-4.7.2-1].
 */

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

/** Whether a topic is wanted. */
export type TopicPredicate = (topic: string) => boolean

/** All topics, as no filter has them. */
export const everyTopic: TopicPredicate = () => true

/** As many filters are matched one after the other; more are faster together. */
const few = 4

/**
 * A predicate for the topics that any of `filters` matches, which are valid. It is made when it is first asked: who has
 * a thousand filters waits for nothing that nobody wants to know.
 */
export function topicPredicate(filters: readonly string[]): TopicPredicate {
  if (filters.length > few) {
    let set: FilterSet | undefined
    return topic => {
      set ??= new FilterSet(filters)
      return set.has(topic)
    }
  }
  const predicates = filters.map(filterPredicate)
  const [only] = predicates
  if (only && predicates.length === 1) return only
  return topic => predicates.some(predicate => predicate(topic))
}

/** How many filters by themselves take as long to match as all of these, at the worst; at least 1. */
export function matchCost({ length }: readonly string[]): number {
  return length > few ? few + length / 32 : Math.max(1, length)
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

/** Whether a filter leaves out topics that begin with `$`. */
export function startsWithWildcard(filter: string): boolean {
  return filter.startsWith('+') || filter.startsWith('#')
}
