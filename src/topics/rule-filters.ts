import { topicFilterProblem } from './filter-problems.js'
import { hasForbiddenCharacter } from './forbidden-characters.js'

/** How large topics and filters may be. */
export interface TopicBounds {
  /** Levels, that is: one more than there are slashes. */
  readonly levels: number
  /** Bytes of UTF-8. */
  readonly length: number
}

const slash = '/'.charCodeAt(0)
const plus = '+'.charCodeAt(0)
const hash = '#'.charCodeAt(0)

/** Whether one may publish to `topic`: not empty, no wildcard, no forbidden character (MQTT 3.1.1 §4.7, §1.5.3), and within bounds. */
export function isTopicName(topic: string, bounds: TopicBounds): boolean {
  if (topic === '') return false
  let levels = 1
  for (let index = 0; index < topic.length; index++) {
    const code = topic.charCodeAt(index)
    if (code === slash) levels += 1
    else if (code === plus || code === hash) return false
  }
  return levels <= bounds.levels && isWithinLength(topic, bounds.length) && !hasForbiddenCharacter(topic)
}

/** Whether `filter` is a topic filter (MQTT 3.1.1 §4.7) within bounds. */
export function isTopicFilter(filter: string, bounds: TopicBounds): boolean {
  if (!isWithinLength(filter, bounds.length)) return false
  return topicFilterProblem(filter) === undefined && filter.split('/', bounds.levels + 1).length <= bounds.levels
}

/** One UTF-16 unit is three bytes of UTF-8 at most, so most texts need not be measured. */
function isWithinLength(text: string, length: number): boolean {
  return text.length * 3 <= length || (text.length <= length && Buffer.byteLength(text) <= length)
}

/** A filter, taken apart once. */
export type FilterLevels = readonly string[]

/**
 * Takes a valid filter apart. `+/#` becomes `#`, and `/+/#` becomes `/#`: they match the same, as the parent level that
 * `#` includes would be no level or an empty topic, which there is not.
 */
export function splitFilter(filter: string): FilterLevels {
  if (filter === '+/#') return ['#']
  return filter === '/+/#' ? ['', '#'] : filter.split('/')
}

/**
 * Whether a filter matches a topic name, as in MQTT 3.1.1 §4.7: `#` includes the parent level, and no wildcard matches
 * a first level that begins with `$` [MQTT-4.7.2-1]. Nothing is allocated.
 */
export function matchesTopic(filter: FilterLevels, topic: string): boolean {
  let begin = 0
  for (let index = 0; index < filter.length; index++) {
    const level = filter[index] ?? ''
    if (level === '#') return index > 0 || !isDollar(topic)
    if (begin > topic.length) return false
    const slashAt = topic.indexOf('/', begin)
    const end = slashAt === -1 ? topic.length : slashAt
    if (level === '+') {
      if (index === 0 && isDollar(topic)) return false
    } else if (end - begin !== level.length || !topic.startsWith(level, begin)) return false
    begin = end + 1
  }
  return begin > topic.length
}

/**
 * Whether every topic that `asked` matches is matched by `rule`. For a single rule the answer is exact: `news/#`
 * covers `news`, `news/+` and `news/#`, and neither `#` nor `+/sport`; `#` covers nothing that begins with `$`.
 *
 * Two rules together can match all that a filter matches where neither does alone; that is not looked for, so that what
 * somebody may subscribe to can be read off the rules one by one.
 */
export function covers(rule: FilterLevels, asked: FilterLevels): boolean {
  // The other way round than in `splitFilter`: whoever asks for `/#` asks for a second level.
  const requested = asked.length === 2 && asked[0] === '' && asked[1] === '#' ? ['', '+', '#'] : asked
  for (const [index, level] of rule.entries()) {
    const wanted = requested[index]
    const dollar = index === 0 && isDollar(wanted ?? '')
    // At the end of `requested` it is the parent level that `#` includes.
    if (level === '#') return !dollar
    if (wanted === undefined || wanted === '#') return false
    if (level === '+' ? dollar : level !== wanted) return false
  }
  return requested.length === rule.length
}

function isDollar(topic: string): boolean {
  return topic.startsWith('$')
}
