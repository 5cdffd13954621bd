import { commonLength, FilterBranch, firstLevel, slash } from './filter-branch.js'
import { FilterValues } from './filter-values.js'

/**
 * Values by topic filter: finds all whose filter matches a topic.
 *
 * Wildcards as in MQTT 3.1.1 §4.7: `+` takes one level, also an empty one; `#` takes the rest, the parent level included; neither, at the
 * start of a filter, matches a topic that begins with `$` [MQTT-4.7.2-1].
 *
 * A radix tree over levels: where filters do not part, their levels are one branch. Its memory is some 500 bytes for each filter and two
 * bytes for each of its characters, however many levels it has; matching visits the branches that match and no others.
 */
export class FilterIndex<V> {
  readonly #root = new FilterBranch<V>('')
  /** As many levels as any filter had. */
  #depth = 0
  #size = 0

  /** Different filters. */
  get size(): number {
    return this.#size
  }

  /** @param filter a valid one; matching takes as much stack as it has levels */
  add(filter: string, value: V): void {
    const branch = this.#make(pathOf(filter))
    const isOpen = endsOpen(filter)
    let values = isOpen ? branch.rest : branch.end
    if (!values) {
      values = new FilterValues(filter)
      if (isOpen) branch.rest = values
      else branch.end = values
      this.#size++
    }
    values.add(value)
  }

  /** The branch that ends with the path; made where there is none. */
  #make(path: string | undefined): FilterBranch<V> {
    let branch = this.#root
    let depth = 0
    while (path !== undefined) {
      let child = branch.child(firstLevel(path))
      if (!child) {
        child = new FilterBranch<V>(path)
        branch.attach(child)
      }
      const common = commonLength(child.label, path)
      branch = common === child.label.length ? child : branch.part(child, common)
      depth += branch.levels
      path = common === path.length ? undefined : path.slice(common + 1)
    }
    this.#depth = Math.max(this.#depth, depth)
    return branch
  }

  /** Removes `value` from `filter`. @returns whether it was there */
  remove(filter: string, value: V): boolean {
    const branches = this.#walk(filter)
    const branch = branches?.at(-1)
    if (!branches || !branch) return false
    const isOpen = endsOpen(filter)
    const values = isOpen ? branch.rest : branch.end
    if (!values?.delete(value)) return false
    if (values.size > 0) return true
    if (isOpen) branch.rest = undefined
    else branch.end = undefined
    this.#size--
    this.#prune(branch, branches.at(-2), branches.length > 2)
    return true
  }

  /** The branches from the root to where `filter` ends; `undefined` where it is not there. */
  #walk(filter: string): FilterBranch<V>[] | undefined {
    let branch = this.#root
    const branches = [branch]
    for (let path = pathOf(filter); path !== undefined; ) {
      const child = branch.child(firstLevel(path))
      if (!child || commonLength(child.label, path) !== child.label.length) return undefined
      path = path.length === child.label.length ? undefined : path.slice(child.label.length + 1)
      branch = child
      branches.push(branch)
    }
    return branches
  }

  /** Removes what no filter needs of a branch that lost one. The root stays. */
  #prune(branch: FilterBranch<V>, parent: FilterBranch<V> | undefined, hasGrandparent: boolean): void {
    if (!parent) return
    if (!branch.isEmpty) branch.join()
    else {
      parent.detach(firstLevel(branch.label))
      if (hasGrandparent) parent.join()
    }
  }

  /** The values under exactly this filter; `undefined` where there is none. */
  get(filter: string): FilterValues<V> | undefined {
    const branch = this.#walk(filter)?.at(-1)
    return endsOpen(filter) ? branch?.rest : branch?.end
  }

  /** All filters, with their values. Nothing may be added or removed meanwhile. */
  *filters(branch = this.#root): Generator<FilterValues<V>, void, void> {
    if (branch.end) yield branch.end
    if (branch.rest) yield branch.rest
    for (const child of branch.children()) yield* this.filters(child)
  }

  /** The values of each filter that matches; a value added under several of them comes several times. */
  match(topic: string): FilterValues<V>[] {
    const found: FilterValues<V>[] = []
    if (this.#size > 0) new Search(topic, topic.split('/', this.#depth + 1), found).start(this.#root)
    return found
  }
}

/** Whether the filter ends with `#`. */
function endsOpen(filter: string): boolean {
  return filter.endsWith('#')
}

/** The levels of a filter without `#` at its end; `undefined` for `#` itself, which has no other. */
function pathOf(filter: string): string | undefined {
  if (!endsOpen(filter)) return filter
  return filter === '#' ? undefined : filter.slice(0, -2)
}

/** One search for the filters that match a topic. */
class Search<V> {
  readonly #topic: string
  /** The topic's levels, or as many as any filter has and one more. */
  readonly #words: readonly string[]
  readonly #found: FilterValues<V>[]

  constructor(topic: string, words: readonly string[], found: FilterValues<V>[]) {
    this.#topic = topic
    this.#words = words
    this.#found = found
  }

  start(root: FilterBranch<V>): void {
    if (!this.#topic.startsWith('$')) this.#follow(root, 0, 0)
    else {
      const child = root.named(this.#words[0] ?? '')
      if (child) this.#enter(child, 0, 0)
    }
  }

  /** Goes on behind a branch that matches: with the topic's level `depth`, which begins at the character `at`. */
  #follow(branch: FilterBranch<V>, depth: number, at: number): void {
    if (branch.rest) this.#found.push(branch.rest)
    const word = this.#words[depth]
    if (word === undefined) {
      if (branch.end) this.#found.push(branch.end)
      return
    }
    const named = branch.named(word)
    if (named) this.#enter(named, depth, at)
    if (branch.plus) this.#enter(branch.plus, depth, at)
  }

  /** Matches the levels of a branch, the first of which is known to match. */
  #enter(branch: FilterBranch<V>, depth: number, at: number): void {
    const { label, levels } = branch
    if (levels === 1) this.#follow(branch, depth + 1, at + (this.#words[depth]?.length ?? 0) + 1)
    else if (branch.isMixed) this.#enterMixed(branch, depth, at)
    else {
      const end = at + label.length
      if (!this.#topic.startsWith(label, at)) return
      if (end === this.#topic.length || this.#topic.charCodeAt(end) === slash)
        this.#follow(branch, depth + levels, end + 1)
    }
  }

  #enterMixed(branch: FilterBranch<V>, depth: number, at: number): void {
    const { label } = branch
    for (let start = 0; start <= label.length; ) {
      const word = this.#words[depth]
      if (word === undefined) return
      const next = label.indexOf('/', start)
      const end = next === -1 ? label.length : next
      const isAny = end === start + 1 && label.charCodeAt(start) === plus
      if (!isAny && !(word.length === end - start && label.startsWith(word, start))) return
      depth++
      at += word.length + 1
      start = end + 1
    }
    this.#follow(branch, depth, at)
  }
}

const plus = 43
