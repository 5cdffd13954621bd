import type { FilterValues } from './filter-values.js'
import { ownText } from './own-text.js'

/**
 * Levels that follow one another in all filters that have the first of them here, and the filters that go on from there. Of `a/b/+/c` and
 * `a/b/d`, the branch `a/b` has the branches `+/c` and `d`.
 */
export class FilterBranch<V> {
  /** Its levels, with a slash between two; never `#`. */
  label: string
  /** How many levels those are. */
  levels: number
  /** Whether `+` is among several levels. */
  isMixed: boolean
  /** Of the filter that ends here. */
  end: FilterValues<V> | undefined
  /** Of the filter that ends here but for `/#`. */
  rest: FilterValues<V> | undefined
  /** The branch that goes on with `+`. */
  plus: FilterBranch<V> | undefined
  /** Those that go on with a name: by that, where there were two. */
  #named: FilterBranch<V> | Map<string, FilterBranch<V>> | undefined

  constructor(label: string) {
    this.end = undefined
    this.rest = undefined
    this.plus = undefined
    this.label = ''
    this.levels = 0
    this.isMixed = false
    this.relabel(label)
  }

  relabel(label: string): void {
    this.label = ownText(label)
    this.levels = 1
    for (let at = label.indexOf('/'); at !== -1; at = label.indexOf('/', at + 1)) this.levels++
    // A valid filter has + in no other place.
    this.isMixed = this.levels > 1 && label.includes('+')
  }

  /** The branch that goes on with the name `word`, which is one level. */
  named(word: string): FilterBranch<V> | undefined {
    const named = this.#named
    if (named === undefined) return undefined
    if (named instanceof Map) return named.get(word)
    const { label, levels } = named
    if (levels === 1) return label === word ? named : undefined
    return label.charCodeAt(word.length) === slash && label.startsWith(word) ? named : undefined
  }

  /** The branch that goes on with `word`: a name, or `+`. */
  child(word: string): FilterBranch<V> | undefined {
    return word === '+' ? this.plus : this.named(word)
  }

  /** Puts `child` where its first level belongs; what was there goes. */
  attach(child: FilterBranch<V>): void {
    const word = firstLevel(child.label)
    const named = this.#named
    if (word === '+') this.plus = child
    else if (named instanceof Map) named.set(ownText(word), child)
    else if (named === undefined || this.named(word)) this.#named = child
    else {
      this.#named = new Map([
        [ownText(firstLevel(named.label)), named],
        [ownText(word), child],
      ])
    }
  }

  /** Removes the branch that goes on with `word`. */
  detach(word: string): void {
    if (word === '+') this.plus = undefined
    else if (this.#named instanceof Map) this.#named.delete(word)
    else this.#named = undefined
  }

  /** The branches that go on from here. */
  *children(): Generator<FilterBranch<V>, void, void> {
    if (this.plus) yield this.plus
    if (this.#named instanceof Map) yield* this.#named.values()
    else if (this.#named) yield this.#named
  }

  get #childCount(): number {
    const named = this.#named
    return (this.plus ? 1 : 0) + (named instanceof Map ? named.size : named ? 1 : 0)
  }

  /** Whether no filter needs it. */
  get isEmpty(): boolean {
    return !this.end && !this.rest && this.#childCount === 0
  }

  /** Parts a child after the first `length` characters of its label, which are whole levels. @returns the first part */
  part(child: FilterBranch<V>, length: number): FilterBranch<V> {
    const upper = new FilterBranch<V>(child.label.slice(0, length))
    this.attach(upper)
    child.relabel(child.label.slice(length + 1))
    upper.attach(child)
    return upper
  }

  /** Makes one branch of this and its child, where all its filters go on with the one child. */
  join(): void {
    if (this.end || this.rest || this.#childCount !== 1) return
    const [child] = [...this.children()]
    if (!child) return
    this.relabel(`${this.label}/${child.label}`)
    this.end = child.end
    this.rest = child.rest
    this.plus = child.plus
    this.#named = child.#named
  }
}

export const slash = 47

/** The first level of a filter, or of its rest. */
export function firstLevel(text: string): string {
  const end = text.indexOf('/')
  return end === -1 ? text : text.slice(0, end)
}

/** How many characters of `label` and `text`, whose first level is the same, are the same levels. */
export function commonLength(label: string, text: string): number {
  const shorter = Math.min(label.length, text.length)
  let [at, common] = [0, 0]
  for (; at < shorter && label.charCodeAt(at) === text.charCodeAt(at); at++) {
    if (label.charCodeAt(at) === slash) common = at
  }
  return endsAt(label, at) && endsAt(text, at) ? at : common
}

function endsAt(text: string, at: number): boolean {
  return at === text.length || text.charCodeAt(at) === slash
}
