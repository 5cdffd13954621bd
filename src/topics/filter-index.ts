import { commonLength, FilterNode, FilterValues, firstLevelOf, slash } from './filter-node.js'

/**
 * An index of values by topic filter, which finds all values whose filter matches a topic (MQTT 3.1.1 §4.7).
 *
 * A radix tree over levels: memory is some 500 bytes for each filter and two bytes for each of its characters, however many levels it
 * has; matching visits only nodes that match.
 */
export class FilterIndex<V> {
  readonly #root = new FilterNode<V>('')
  /** Levels of the deepest filter so far. */
  #depth = 0
  #size = 0

  /** Number of different filters. */
  get size(): number {
    return this.#size
  }

  /** @param filter a valid one; matching takes as much stack as it has levels */
  add(filter: string, value: V): void {
    const node = this.#nodeAt(pathOf(filter))
    const hasHash = endsWithHash(filter)
    let values = hasHash ? node.rest : node.end
    if (!values) {
      values = new FilterValues(filter)
      if (hasHash) node.rest = values
      else node.end = values
      this.#size++
    }
    values.add(value)
  }

  /** Returns the node at which the path ends, and makes it where there is none. */
  #nodeAt(path: string | undefined): FilterNode<V> {
    let node = this.#root
    let depth = 0
    while (path !== undefined) {
      let child = node.child(firstLevelOf(path))
      if (!child) {
        child = new FilterNode<V>(path)
        node.attach(child)
      }
      const common = commonLength(child.label, path)
      node = common === child.label.length ? child : node.split(child, common)
      depth += node.levels
      path = common === path.length ? undefined : path.slice(common + 1)
    }
    this.#depth = Math.max(this.#depth, depth)
    return node
  }

  /** Removes `value` from `filter`. @returns whether it was there */
  remove(filter: string, value: V): boolean {
    const nodes = this.#walk(filter)
    const node = nodes?.at(-1)
    if (!nodes || !node) return false
    const hasHash = endsWithHash(filter)
    const values = hasHash ? node.rest : node.end
    if (!values?.delete(value)) return false
    if (values.size > 0) return true
    if (hasHash) node.rest = undefined
    else node.end = undefined
    this.#size--
    this.#prune(node, nodes.at(-2), nodes.length > 2)
    return true
  }

  /** Returns the nodes from the root to the one where `filter` ends; `undefined` if there is none. */
  #walk(filter: string): FilterNode<V>[] | undefined {
    let node = this.#root
    const nodes = [node]
    for (let path = pathOf(filter); path !== undefined; ) {
      const child = node.child(firstLevelOf(path))
      if (!child || commonLength(child.label, path) !== child.label.length) return undefined
      path = path.length === child.label.length ? undefined : path.slice(child.label.length + 1)
      node = child
      nodes.push(node)
    }
    return nodes
  }

  /** Removes or merges a node that has lost a filter. The root stays. */
  #prune(node: FilterNode<V>, parent: FilterNode<V> | undefined, hasGrandparent: boolean): void {
    if (!parent) return
    if (!node.isEmpty) node.merge()
    else {
      parent.detach(firstLevelOf(node.label))
      if (hasGrandparent) parent.merge()
    }
  }

  /** The values under exactly this filter; `undefined` if there is none. */
  get(filter: string): FilterValues<V> | undefined {
    const node = this.#walk(filter)?.at(-1)
    return endsWithHash(filter) ? node?.rest : node?.end
  }

  /** All filters, with their values. Nothing may be added or removed meanwhile. */
  *filters(node = this.#root): Generator<FilterValues<V>, void, void> {
    if (node.end) yield node.end
    if (node.rest) yield node.rest
    for (const child of node.children()) yield* this.filters(child)
  }

  /** Returns the values of each matching filter; a value of several filters occurs several times. */
  match(topic: string): FilterValues<V>[] {
    const found: FilterValues<V>[] = []
    if (this.#size > 0) new Search(topic, topic.split('/', this.#depth + 1), found).start(this.#root)
    return found
  }
}

function endsWithHash(filter: string): boolean {
  return filter.endsWith('#')
}

/** The levels of a filter without `#` at its end; `undefined` for `#` itself, which has no other. */
function pathOf(filter: string): string | undefined {
  if (!endsWithHash(filter)) return filter
  return filter === '#' ? undefined : filter.slice(0, -2)
}

/** One search for the filters that match a topic. */
class Search<V> {
  readonly #topic: string
  /** The topic's levels, up to one more than the deepest filter has. */
  readonly #levels: readonly string[]
  readonly #found: FilterValues<V>[]

  constructor(topic: string, levels: readonly string[], found: FilterValues<V>[]) {
    this.#topic = topic
    this.#levels = levels
    this.#found = found
  }

  start(root: FilterNode<V>): void {
    if (!this.#topic.startsWith('$')) this.#follow(root, 0, 0)
    else {
      const child = root.named(this.#levels[0] ?? '')
      if (child) this.#enter(child, 0, 0)
    }
  }

  /** Continues below a node that matches, with the topic's level `depth`, which begins at the character `at`. */
  #follow(node: FilterNode<V>, depth: number, at: number): void {
    if (node.rest) this.#found.push(node.rest)
    const level = this.#levels[depth]
    if (level === undefined) {
      if (node.end) this.#found.push(node.end)
      return
    }
    const named = node.named(level)
    if (named) this.#enter(named, depth, at)
    if (node.plus) this.#enter(node.plus, depth, at)
  }

  /** Matches the levels of a node whose first level is known to match. */
  #enter(node: FilterNode<V>, depth: number, at: number): void {
    const { label, levels } = node
    if (levels === 1) this.#follow(node, depth + 1, at + (this.#levels[depth]?.length ?? 0) + 1)
    else if (node.hasPlus) this.#enterWithPlus(node, depth, at)
    else {
      const end = at + label.length
      if (!this.#topic.startsWith(label, at)) return
      if (end === this.#topic.length || this.#topic.charCodeAt(end) === slash)
        this.#follow(node, depth + levels, end + 1)
    }
  }

  #enterWithPlus(node: FilterNode<V>, depth: number, at: number): void {
    const { label } = node
    for (let start = 0; start <= label.length; ) {
      const level = this.#levels[depth]
      if (level === undefined) return
      const next = label.indexOf('/', start)
      const end = next === -1 ? label.length : next
      const isAny = end === start + 1 && label.charCodeAt(start) === plus
      if (!isAny && !(level.length === end - start && label.startsWith(level, start))) return
      depth++
      at += level.length + 1
      start = end + 1
    }
    this.#follow(node, depth, at)
  }
}

const plus = 43
