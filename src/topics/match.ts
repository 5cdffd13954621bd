import { FilterSet } from './filter-set.js'

/*
 * Matching of topic filters (MQTT 3.1.1 §4.7): `+` matches one level, also an empty one; `#` matches the rest and the parent level;
 * a wildcard at the start of a filter does not match a topic that begins with `$` [MQTT-4.7.2-1]. All filters here are valid.
 */

/** Whether a filter matches a topic. Allocates nothing. For many filters, there are `topicPredicate` and `FilterIndex`. */
export function filterMatches(filter: string, topic: string): boolean {
  if (isSystem(topic) && (filter.charCodeAt(0) === plus || filter.charCodeAt(0) === hash)) return false
  let [at, topicAt] = [0, 0]
  for (;;) {
    const code = filter.charCodeAt(at)
    if (code === hash) return true
    if (code === plus) {
      const next = topic.indexOf('/', topicAt)
      topicAt = next === -1 ? topic.length : next
      at++
    } else {
      while (
        at < filter.length &&
        filter.charCodeAt(at) !== slash &&
        filter.charCodeAt(at) === topic.charCodeAt(topicAt)
      ) {
        at++
        topicAt++
      }
    }
    const topicEnded = topicAt === topic.length
    if (at === filter.length) return topicEnded
    if (filter.charCodeAt(at) !== slash) return false
    // `#` matches the parent level, too.
    if (topicEnded) return at === filter.length - 2 && filter.charCodeAt(at + 1) === hash
    if (topic.charCodeAt(topicAt) !== slash) return false
    at++
    topicAt++
  }
}

const [dollar, hash, plus, slash] = [36, 35, 43, 47]

/** Wildcards at the start of a filter do not match topics, or first levels, that begin with `$` [MQTT-4.7.2-1]. */
function isSystem(topic: string | undefined): boolean {
  return topic?.charCodeAt(0) === dollar
}

/** Whether a topic matches. */
export type TopicPredicate = (topic: string) => boolean

/** Matches every topic, also those that begin with `$`, which no filter does. */
export const everyTopic: TopicPredicate = () => true

/** Up to this many filters are matched one after the other; more are faster as a `FilterSet`. */
const maxSequential = 4

/** Returns a predicate for the topics that any of `filters` matches. Many filters are compiled at the first call. */
export function topicPredicate(filters: readonly string[]): TopicPredicate {
  if (filters.length > maxSequential) {
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

function filterPredicate(filter: string): TopicPredicate {
  if (filter === '#') return topic => !isSystem(topic)
  if (filter.includes('+')) return topic => filterMatches(filter, topic)
  if (!filter.endsWith('#')) return topic => topic === filter
  const [prefix, parent] = [filter.slice(0, -1), filter.slice(0, -2)]
  return topic => topic.startsWith(prefix) || topic === parent
}

/** The cost of matching all `filters` against a topic, in units of one filter matched alone; at least 1. */
export function matchCost({ length }: readonly string[]): number {
  return length > maxSequential ? maxSequential + length / 32 : Math.max(1, length)
}

/** Whether there is a topic that both filters match; a topic is a filter, too. */
export function filtersOverlap(one: string, other: string): boolean {
  const [ones, others] = [one.split('/'), other.split('/')]
  for (let index = 0; ; index++) {
    const [a, b] = [ones[index], others[index]]
    if (a === '#' || b === '#') {
      const rest = a === '#' ? b : a
      if (index === 0) return !isSystem(rest)
      // `#` matches the parent level, too, which is no topic where it is empty.
      return rest !== undefined || index > 1 || (ones[0] !== '' && others[0] !== '')
    }
    if (a === undefined || b === undefined) return a === b
    if (a === '+' || b === '+') {
      if (index === 0 && isSystem(a === '+' ? b : a)) return false
    } else if (a !== b) return false
  }
}

/** Whether `outer` matches every topic that `inner` matches. Exact: `news/#` covers `news`, `news/+` and `news/#`; `+/#` covers `#`. */
export function filterCovers(outer: string, inner: string): boolean {
  const outers = outer === '+/#' ? ['#'] : outer === '/+/#' ? ['', '#'] : outer.split('/')
  const inners = inner === '+/#' ? ['#'] : inner === '/#' ? ['', '+', '#'] : inner.split('/')
  for (const [index, level] of outers.entries()) {
    const other = inners[index]
    const isSystemLevel = index === 0 && isSystem(other)
    // At the end of `inners` it is the parent level that `#` includes.
    if (level === '#') return !isSystemLevel
    if (other === undefined || other === '#') return false
    if (level === '+' ? isSystemLevel : level !== other) return false
  }
  return inners.length === outers.length
}
