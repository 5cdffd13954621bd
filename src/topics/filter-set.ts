/*
 * Many topic filters at once; wildcards as in `topics.ts`. Those with a wildcard, the patterns, have one bit each, so
 * that one level of a topic is held against 32 of them in one step. Whatever a client's thousand filters are, a topic
 * takes 32 steps a level; a trie takes a thousand where all of them match.
 */

/** The rows that each level has besides those of its words: patterns that have `+` there, `#`, or have ended; and none. */
const [plus, rest, end, none] = [0, 1, 2, 3]

/** What patterns have in one level: rows of bits, one for each pattern. */
class PatternLevel {
  /** The row of each word: the patterns that have it, or `+`. All other words have the row `plus`. */
  readonly words = new Map<string, number>()
  readonly #width: number
  /** Whether a topic's word here may begin with `$`, which no wildcard takes. */
  readonly #isFirst: boolean
  /** Which of the first rows have any pattern. */
  readonly #used = [false, false, false]
  #bits: Int32Array
  #rows = 4

  /** @param width of a row, in words of 32 bits */
  constructor(width: number, isFirst: boolean) {
    this.#width = width
    this.#isFirst = isFirst
    this.#bits = new Int32Array(8 * width)
  }

  /** Notes the level of a pattern; `undefined` where it has ended. */
  add(pattern: number, word: string | undefined): void {
    const row = word === undefined ? end : word === '+' ? plus : word === '#' ? rest : this.#rowOf(word)
    if (row <= end) this.#used[row] = true
    this.#set(row, pattern >>> 5, 1 << (pattern & 31))
  }

  #rowOf(word: string): number {
    let row = this.words.get(word)
    if (row === undefined) {
      row = this.#rows++
      this.words.set(word, row)
      if (this.#rows * this.#width > this.#bits.length) {
        const bits = new Int32Array(2 * this.#bits.length)
        bits.set(this.#bits)
        this.#bits = bits
      }
    }
    return row
  }

  /** To be called when all patterns are noted: what has `+` takes the words of others, too. */
  seal(): void {
    const width = this.#width
    if (!this.#used[plus]) return
    for (const [word, row] of this.words) {
      if (this.#isSystem(word)) continue
      for (let at = 0; at < width; at++) this.#set(row, at, this.#bits[plus * width + at] ?? 0)
    }
  }

  #set(row: number, at: number, bits: number): void {
    const place = row * this.#width + at
    this.#bits[place] = (this.#bits[place] ?? 0) | bits
  }

  #isSystem(word: string): boolean {
    return this.#isFirst && word.startsWith('$')
  }

  /** Leaves of `active` the patterns that take this word; tells whether there are any. */
  narrow(active: Int32Array, word: string): boolean {
    const row = this.words.get(word) ?? (this.#isSystem(word) ? none : plus)
    const start = row * this.#width
    let any = 0
    for (let at = 0; at < active.length; at++) {
      const bits = (active[at] ?? 0) & (this.#bits[start + at] ?? 0)
      active[at] = bits
      any |= bits
    }
    return any !== 0
  }

  /** Whether any of `active` has `#` here and so takes all that begins so, as a topic with this word does. */
  takesRest(active: Int32Array, word = ''): boolean {
    return !this.#isSystem(word) && this.#has(active, rest)
  }

  /** Whether any of `active` has ended, and takes a topic that ends here. */
  takesEnd(active: Int32Array): boolean {
    return this.#has(active, end)
  }

  /** Whether any of `active` takes more words than are in `words`. */
  takesOthers(active: Int32Array): boolean {
    return this.#has(active, plus) || this.#has(active, rest)
  }

  #has(active: Int32Array, row: number): boolean {
    if (!this.#used[row]) return false
    const start = row * this.#width
    return active.some((bits, at) => (bits & (this.#bits[start + at] ?? 0)) !== 0)
  }
}

/** Filters that the first levels of a topic match so far: for walking over topics that begin alike. */
export interface PartMatch {
  /** Whether a topic matches that has these levels and no more. */
  readonly isWhole: boolean
  /** The match after the levels of `label` that follow its first one; `undefined` where no filter is left. */
  afterRest(label: string): PartMatch | undefined
  /** The entries of `next`, by the word of the next level, that may match; `undefined` for each that was looked at and does not. */
  among<T>(next: ReadonlyMap<string, T>): Iterable<[T, PartMatch] | undefined>
}

/** All topics that begin so match. */
const everything: PartMatch = {
  isWhole: true,
  afterRest: () => everything,
  *among(next) {
    for (const one of next.values()) yield [one, everything]
  },
}

class PatternMatch implements PartMatch {
  readonly #levels: readonly PatternLevel[]
  readonly #depth: number
  readonly #active: Int32Array

  constructor(levels: readonly PatternLevel[], depth: number, active: Int32Array) {
    this.#levels = levels
    this.#depth = depth
    this.#active = active
  }

  get isWhole(): boolean {
    const level = this.#levels[this.#depth]
    return level !== undefined && (level.takesEnd(this.#active) || level.takesRest(this.#active))
  }

  afterRest(label: string): PartMatch | undefined {
    let end = label.indexOf('/')
    if (end === -1) return this
    const active = this.#active.slice()
    let depth = this.#depth
    while (end !== -1) {
      const start = end + 1
      end = label.indexOf('/', start)
      const word = label.slice(start, end === -1 ? label.length : end)
      const level = this.#levels[depth++]
      if (level?.takesRest(active, word)) return everything
      if (!level?.narrow(active, word)) return undefined
    }
    return new PatternMatch(this.#levels, depth, active)
  }

  *among<T>(next: ReadonlyMap<string, T>): Generator<[T, PartMatch] | undefined, void, void> {
    const level = this.#levels[this.#depth]
    if (!level) return
    const isOpen = level.takesOthers(this.#active) || next.size <= level.words.size
    for (const word of isOpen ? next.keys() : level.words.keys()) {
      const one = next.get(word)
      const match = one && this.#with(level, word)
      yield match ? [one, match] : undefined
    }
  }

  #with(level: PatternLevel, word: string): PartMatch | undefined {
    if (level.takesRest(this.#active, word)) return everything
    const active = this.#active.slice()
    return level.narrow(active, word) ? new PatternMatch(this.#levels, this.#depth + 1, active) : undefined
  }
}

/** The topics that any of some filters matches. */
export class FilterSet {
  /** The filters that are topics. */
  readonly topics: ReadonlySet<string>
  /** What the others match. */
  readonly patterns: PartMatch
  readonly #levels: PatternLevel[] = []
  readonly #active: Int32Array

  /** @param filters valid ones (`topicFilterProblem`) */
  constructor(filters: readonly string[]) {
    this.topics = new Set(filters.filter(filter => !hasWildcard(filter)))
    const patterns = filters.filter(hasWildcard)
    const width = Math.ceil(patterns.length / 32)
    for (const [pattern, filter] of patterns.entries()) {
      const words: (string | undefined)[] = filter.split('/')
      if (words.at(-1) !== '#') words.push(undefined)
      for (const [depth, word] of words.entries()) {
        this.#levels[depth] ??= new PatternLevel(width, depth === 0)
        this.#levels[depth].add(pattern, word)
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
      if (start > topic.length) return level.takesEnd(active) || level.takesRest(active)
      const slash = topic.indexOf('/', start)
      const word = topic.slice(start, slash === -1 ? topic.length : slash)
      if (level.takesRest(active, word)) return true
      if (!level.narrow(active, word)) return false
      // Past the end of the topic where this was its last level.
      start += word.length + 1
    }
    return false
  }
}

function hasWildcard(filter: string): boolean {
  return filter.includes('+') || filter.includes('#')
}
