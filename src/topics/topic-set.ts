import { covers, type FilterLevels, matchesTopic, splitFilter } from './rule-filters.js'

/**
 * All topics that any of some filters matches, compiled for one connection: most filters are a topic or end in `/#`, and
 * need no walk over levels.
 */
export class TopicSet {
  /** Whether it has every topic but those that begin with `$`. */
  readonly #everything: boolean
  readonly #topics = new Set<string>()
  /** `news/` and `news` of `news/#`. */
  readonly #branches: { readonly below: string; readonly parent: string }[] = []
  readonly #patterns: FilterLevels[] = []
  readonly #filters: readonly FilterLevels[]

  /** @param filters valid ones (`topicFilterProblem`) */
  constructor(filters: Iterable<string>) {
    this.#filters = [...new Set(filters)].map(splitFilter)
    this.#everything = this.#filters.some(levels => levels[0] === '#')
    for (const levels of this.#filters) this.#add(levels)
  }

  #add(levels: FilterLevels): void {
    const text = levels.join('/')
    const literal = !levels.slice(0, -1).includes('+') && levels.at(-1) !== '+'
    if (levels[0] === '#') return
    if (!literal) this.#patterns.push(levels)
    else if (levels.at(-1) === '#') this.#branches.push({ below: text.slice(0, -1), parent: text.slice(0, -2) })
    else this.#topics.add(text)
  }

  /** Whether a filter matches `topic`. */
  has(topic: string): boolean {
    if (this.#everything && !topic.startsWith('$')) return true
    if (this.#topics.has(topic)) return true
    for (const { below, parent } of this.#branches) if (topic.startsWith(below) || topic === parent) return true
    for (const pattern of this.#patterns) if (matchesTopic(pattern, topic)) return true
    return false
  }

  /** Whether one of the filters covers `filter`, which is valid. */
  covers(filter: string): boolean {
    if (this.#everything && !filter.startsWith('$')) return true
    const requested = splitFilter(filter)
    return this.#filters.some(rule => covers(rule, requested))
  }
}
