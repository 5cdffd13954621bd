import { hasWildcard } from './topic-syntax.js'

/*
 * Matches many topic filters at once. Each pattern (a filter with a wildcard) has one bit, so that one step compares a level of a
 * topic with 32 patterns. A thousand filters of any kind take 32 steps for each level; a trie takes a thousand if all match.
 */

/** Rows of each level in addition to those of its names: patterns with `+` there, with `#`, and with an earlier end; and no pattern. */
const [plus, rest, end, none] = [0, 1, 2, 3]

/** One level of all patterns: rows with one bit for each pattern. */
class PatternLevel {
  /** The row of each level name: the patterns that have this name or `+`. All other names have the row `plus`. */
  readonly names = new Map<string, number>()
  readonly #width: number
  /** Whether this is the first level, where no wildcard matches a name that begins with `$`. */
  readonly #isFirst: boolean
  /** Whether any pattern is in the rows `plus`, `rest` and `end`. */
  readonly #used = [false, false, false]
  #bits: Int32Array
  #rows = 4

  /** @param width of a row, in integers of 32 bits */
  constructor(width: number, isFirst: boolean) {
    this.#width = width
    this.#isFirst = isFirst
    this.#bits = new Int32Array(8 * width)
  }

  /** Adds the level of a pattern; `undefined` if it has ended. */
  add(pattern: number, name: string | undefined): void {
    const row = name === undefined ? end : name === '+' ? plus : name === '#' ? rest : this.#rowOf(name)
    if (row <= end) this.#used[row] = true
    this.#set(row, pattern >>> 5, 1 << (pattern & 31))
  }

  #rowOf(name: string): number {
    let row = this.names.get(name)
    if (row === undefined) {
      row = this.#rows++
      this.names.set(name, row)
      if (this.#rows * this.#width > this.#bits.length) {
        const bits = new Int32Array(2 * this.#bits.length)
        bits.set(this.#bits)
        this.#bits = bits
      }
    }
    return row
  }

  /** Adds the patterns with `+` to the rows of all names. Call after adding all patterns. */
  seal(): void {
    const width = this.#width
    if (!this.#used[plus]) return
    for (const [name, row] of this.names) {
      if (this.#isSystem(name)) continue
      for (let at = 0; at < width; at++) this.#set(row, at, this.#bits[plus * width + at] ?? 0)
    }
  }

  #set(row: number, at: number, bits: number): void {
    const index = row * this.#width + at
    this.#bits[index] = (this.#bits[index] ?? 0) | bits
  }

  #isSystem(name: string): boolean {
    return this.#isFirst && name.startsWith('$')
  }

  /** Removes from `active` the patterns that do not match this name. @returns whether any is left */
  narrow(active: Int32Array, name: string): boolean {
    const row = this.names.get(name) ?? (this.#isSystem(name) ? none : plus)
    const start = row * this.#width
    let any = 0
    for (let at = 0; at < active.length; at++) {
      const bits = (active[at] ?? 0) & (this.#bits[start + at] ?? 0)
      active[at] = bits
      any |= bits
    }
    return any !== 0
  }

  /** Whether any of `active` has `#` here, and matches a topic with this name. */
  hasHash(active: Int32Array, name = ''): boolean {
    return !this.#isSystem(name) && this.#has(active, rest)
  }

  /** Whether any of `active` has ended, and matches a topic that ends here. */
  hasEnded(active: Int32Array): boolean {
    return this.#has(active, end)
  }

  /** Whether any of `active` matches other names than those in `names`. */
  hasWildcard(active: Int32Array): boolean {
    return this.#has(active, plus) || this.#has(active, rest)
  }

  #has(active: Int32Array, row: number): boolean {
    if (!this.#used[row]) return false
    const start = row * this.#width
    return active.some((bits, at) => (bits & (this.#bits[start + at] ?? 0)) !== 0)
  }
}

/** The patterns that match the first levels of topics: for traversing a tree of topics. */
export interface PrefixMatch {
  /** Whether the topic that consists of these levels matches. */
  readonly matchesPrefix: boolean
  /** Matches the levels of `label` after its first one. @returns `undefined` if no pattern is left */
  advance(label: string): PrefixMatch | undefined
  /** Yields the entries of `next`, by the name of the next level, that may match; `undefined` for each one checked that does not. */
  children<T>(next: ReadonlyMap<string, T>): Iterable<[T, PrefixMatch] | undefined>
}

/** All topics with this prefix match. */
const everything: PrefixMatch = {
  matchesPrefix: true,
  advance: () => everything,
  *children(next) {
    for (const one of next.values()) yield [one, everything]
  },
}

class PatternMatch implements PrefixMatch {
  readonly #levels: readonly PatternLevel[]
  readonly #depth: number
  readonly #active: Int32Array

  constructor(levels: readonly PatternLevel[], depth: number, active: Int32Array) {
    this.#levels = levels
    this.#depth = depth
    this.#active = active
  }

  get matchesPrefix(): boolean {
    const level = this.#levels[this.#depth]
    return level !== undefined && (level.hasEnded(this.#active) || level.hasHash(this.#active))
  }

  advance(label: string): PrefixMatch | undefined {
    let end = label.indexOf('/')
    if (end === -1) return this
    const active = this.#active.slice()
    let depth = this.#depth
    while (end !== -1) {
      const start = end + 1
      end = label.indexOf('/', start)
      const name = label.slice(start, end === -1 ? label.length : end)
      const level = this.#levels[depth++]
      if (level?.hasHash(active, name)) return everything
      if (!level?.narrow(active, name)) return undefined
    }
    return new PatternMatch(this.#levels, depth, active)
  }

  *children<T>(next: ReadonlyMap<string, T>): Generator<[T, PrefixMatch] | undefined, void, void> {
    const level = this.#levels[this.#depth]
    if (!level) return
    const checksAll = level.hasWildcard(this.#active) || next.size <= level.names.size
    for (const name of checksAll ? next.keys() : level.names.keys()) {
      const one = next.get(name)
      const match = one && this.#advanceOne(level, name)
      yield match ? [one, match] : undefined
    }
  }

  #advanceOne(level: PatternLevel, name: string): PrefixMatch | undefined {
    if (level.hasHash(this.#active, name)) return everything
    const active = this.#active.slice()
    return level.narrow(active, name) ? new PatternMatch(this.#levels, this.#depth + 1, active) : undefined
  }
}

/** The set of topics that any of some filters matches. */
export class FilterSet {
  /** The filters that are topics. */
  readonly topics: ReadonlySet<string>
  /** Matches the filters with wildcards. */
  readonly patterns: PrefixMatch
  readonly #levels: PatternLevel[] = []
  readonly #active: Int32Array

  /** @param filters valid ones (`topicFilterProblem`) */
  constructor(filters: readonly string[]) {
    this.topics = new Set(filters.filter(filter => !hasWildcard(filter)))
    const patterns = filters.filter(hasWildcard)
    const width = Math.ceil(patterns.length / 32)
    for (const [pattern, filter] of patterns.entries()) {
      const names: (string | undefined)[] = filter.split('/')
      if (names.at(-1) !== '#') names.push(undefined)
      for (const [depth, name] of names.entries()) {
        this.#levels[depth] ??= new PatternLevel(width, depth === 0)
        this.#levels[depth].add(pattern, name)
      }
    }
    for (const level of this.#levels) level.seal()
    this.#active = new Int32Array(width)
    this.patterns = new PatternMatch(this.#levels, 0, new Int32Array(width).fill(-1))
  }

  has(topic: string): boolean {
    if (this.topics.has(topic)) return true
    const active = this.#active.fill(-1)
    let start = 0
    for (const level of this.#levels) {
      if (start > topic.length) return level.hasEnded(active) || level.hasHash(active)
      const slash = topic.indexOf('/', start)
      const name = topic.slice(start, slash === -1 ? topic.length : slash)
      if (level.hasHash(active, name)) return true
      if (!level.narrow(active, name)) return false
      // Past the end of the topic after its last level.
      start += name.length + 1
    }
    return false
  }
}
