import { copyString } from './copy-string.js'

/** The values of one topic filter, without a `Set` while there is only one. No value is `undefined`. */
export class FilterValues<V> {
  readonly filter: string
  /** The only value, if there is one. */
  #only: V | undefined
  /** All values, once there are two. */
  #all: Set<V> | undefined

  constructor(filter: string) {
    this.filter = filter
  }

  get size(): number {
    return this.#all ? this.#all.size : this.#only === undefined ? 0 : 1
  }

  has(value: V): boolean {
    return this.#all ? this.#all.has(value) : this.#only === value
  }

  add(value: V): void {
    if (this.#all) this.#all.add(value)
    else if (this.#only === undefined || this.#only === value) this.#only = value
    else {
      this.#all = new Set([this.#only, value])
      this.#only = undefined
    }
  }

  /** @returns whether it was there */
  delete(value: V): boolean {
    if (this.#all) return this.#all.delete(value)
    if (this.#only !== value) return false
    this.#only = undefined
    return true
  }

  /** Calls `take` with each value, in insertion order. */
  forEach(take: (value: V) => void): void {
    if (this.#all) this.#all.forEach(take)
    else if (this.#only !== undefined) take(this.#only)
  }

  [Symbol.iterator](): IterableIterator<V> {
    if (this.#all) return this.#all.values()
    return (this.#only === undefined ? [] : [this.#only]).values()
  }
}

/** A node of a radix tree over levels. Of `a/b/+/c` and `a/b/d`, the node `a/b` has the children `+/c` and `d`. */
export class FilterNode<V> {
  /** Its levels, joined by slashes; never `#`. */
  label: string
  /** Levels of `label`. */
  levels: number
  /** Whether `label` has several levels, of which any is `+`. */
  hasPlus: boolean
  /** Values of the filter that ends here. */
  end: FilterValues<V> | undefined
  /** Values of the filter that ends here with `/#`. */
  rest: FilterValues<V> | undefined
  /** The child whose first level is `+`. */
  plus: FilterNode<V> | undefined
  /** The other children: one, or by their first level. */
  #named: FilterNode<V> | Map<string, FilterNode<V>> | undefined

  constructor(label: string) {
    this.end = undefined
    this.rest = undefined
    this.plus = undefined
    this.label = ''
    this.levels = 0
    this.hasPlus = false
    this.setLabel(label)
  }

  setLabel(label: string): void {
    this.label = copyString(label)
    this.levels = 1
    for (let at = label.indexOf('/'); at !== -1; at = label.indexOf('/', at + 1)) this.levels++
    this.hasPlus = this.levels > 1 && label.includes('+')
  }

  /** The child whose first level is `level`, which is not `+`. */
  named(level: string): FilterNode<V> | undefined {
    const named = this.#named
    if (named === undefined) return undefined
    if (named instanceof Map) return named.get(level)
    const { label, levels } = named
    if (levels === 1) return label === level ? named : undefined
    return label.charCodeAt(level.length) === slash && label.startsWith(level) ? named : undefined
  }

  /** The child whose first level is `level`. */
  child(level: string): FilterNode<V> | undefined {
    return level === '+' ? this.plus : this.named(level)
  }

  /** Adds a child, or replaces the one with the same first level. */
  attach(child: FilterNode<V>): void {
    const level = firstLevelOf(child.label)
    const named = this.#named
    if (level === '+') this.plus = child
    else if (named instanceof Map) named.set(copyString(level), child)
    else if (named === undefined || this.named(level)) this.#named = child
    else {
      this.#named = new Map([
        [copyString(firstLevelOf(named.label)), named],
        [copyString(level), child],
      ])
    }
  }

  /** Removes the child whose first level is `level`. */
  detach(level: string): void {
    if (level === '+') this.plus = undefined
    else if (this.#named instanceof Map) this.#named.delete(level)
    else this.#named = undefined
  }

  *children(): Generator<FilterNode<V>, void, void> {
    if (this.plus) yield this.plus
    if (this.#named instanceof Map) yield* this.#named.values()
    else if (this.#named) yield this.#named
  }

  get #childCount(): number {
    const named = this.#named
    return (this.plus ? 1 : 0) + (named instanceof Map ? named.size : named ? 1 : 0)
  }

  get isEmpty(): boolean {
    return !this.end && !this.rest && this.#childCount === 0
  }

  /** Splits a child after the first `length` characters of its label, which are whole levels. @returns the upper node */
  split(child: FilterNode<V>, length: number): FilterNode<V> {
    const upper = new FilterNode<V>(child.label.slice(0, length))
    this.attach(upper)
    child.setLabel(child.label.slice(length + 1))
    upper.attach(child)
    return upper
  }

  /** Merges this node with its only child, unless a filter ends here. */
  merge(): void {
    if (this.end || this.rest || this.#childCount !== 1) return
    const [child] = [...this.children()]
    if (!child) return
    this.setLabel(`${this.label}/${child.label}`)
    this.end = child.end
    this.rest = child.rest
    this.plus = child.plus
    this.#named = child.#named
  }
}

export const slash = 47

export function firstLevelOf(text: string): string {
  const end = text.indexOf('/')
  return end === -1 ? text : text.slice(0, end)
}

/** Characters of the levels that `label` and `text` have in common at their start. Their first level is the same. */
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
