import { copyString } from './copy-string.js'
import { FilterSet, type PrefixMatch } from './filter-set.js'

/** Topics with a common prefix. A node without a value has at least two children. */
interface Node<T> {
  /** One or more levels after its parent's, joined by slashes. */
  label: string
  value: T | undefined
  /** By the first level of their labels. */
  children: Children<T> | undefined
}

type Children<T> = Map<string, Node<T>>

/** Children of a node that a search has not visited yet. */
interface Pending<T> {
  /** The levels above them, with a slash at the end. */
  readonly prefix: string
  readonly nodes: Iterator<[Node<T>, PrefixMatch] | undefined>
}

/**
 * A map by topic name, which finds the topics that filters match (MQTT 3.1.1 §4.7) in a time that depends on the number of matches, not
 * of topics. `undefined` is no value.
 *
 * A radix tree over levels: at most two nodes for each topic, and memory in proportion to the characters of the topics. It copies the
 * strings that it keeps.
 */
export class TopicTree<T> {
  readonly #root: Children<T> = new Map()
  #size = 0

  get size(): number {
    return this.#size
  }

  get(topic: string): T | undefined {
    let children: Children<T> | undefined = this.#root
    let at = 0
    while (children) {
      const node: Node<T> | undefined = children.get(levelAt(topic, at))
      if (!node || sharedLength(node.label, topic, at) < node.label.length) return undefined
      at += node.label.length + 1
      if (at > topic.length) return node.value
      children = node.children
    }
    return undefined
  }

  set(topic: string, value: T): void {
    let children = this.#root
    let at = 0
    for (;;) {
      const level = levelAt(topic, at)
      let node = children.get(level)
      if (!node) {
        const label = copyString(topic.slice(at))
        children.set(level.length === label.length ? label : copyString(level), { label, value, children: undefined })
        this.#size++
        return
      }
      const shared = sharedLength(node.label, topic, at)
      if (shared < node.label.length) {
        node = split(node, shared)
        children.set(level, node)
      }
      at += shared + 1
      if (at > topic.length) {
        if (node.value === undefined) this.#size++
        node.value = value
        return
      }
      node.children ??= new Map()
      children = node.children
    }
  }

  delete(topic: string): void {
    const path: { readonly siblings: Children<T>; readonly level: string; readonly node: Node<T> }[] = []
    let siblings: Children<T> | undefined = this.#root
    for (let at = 0; at <= topic.length; ) {
      const level: string = levelAt(topic, at)
      const node: Node<T> | undefined = siblings?.get(level)
      if (!siblings || !node || sharedLength(node.label, topic, at) < node.label.length) return
      path.push({ siblings, level, node })
      at += node.label.length + 1
      siblings = node.children
    }
    const last = path.at(-1)
    if (last?.node.value === undefined) return
    last.node.value = undefined
    this.#size--
    // A grandparent without a value has another child, and stays.
    for (const step of path.slice(-2).reverse()) if (!prune(step.siblings, step.level, step.node)) return
  }

  /**
   * Searches for the topics that any of `filters`, which are valid, matches. Each step visits at most one node, and yields its topic if
   * that matches. Topics that are set or deleted meanwhile may be found or not; those that stay are found once.
   */
  *match(filters: readonly string[]): Generator<string | undefined, void, void> {
    const { topics, patterns } = new FilterSet(filters)
    for (const topic of topics) yield this.get(topic) === undefined ? undefined : topic
    // A topic may have more levels than recursion has stack.
    const path: Pending<T>[] = [{ prefix: '', nodes: patterns.children(this.#root)[Symbol.iterator]() }]
    for (let pending = path.at(-1); pending; pending = path.at(-1)) {
      const { value: found, done } = pending.nodes.next()
      if (done === true) path.pop()
      const [node, first] = found ?? []
      const match = node && first?.advance(node.label)
      if (!node || !match) {
        yield undefined
        continue
      }
      const topic = pending.prefix + node.label
      if (node.children) path.push({ prefix: `${topic}/`, nodes: match.children(node.children)[Symbol.iterator]() })
      yield node.value !== undefined && match.matchesPrefix && !topics.has(topic) ? topic : undefined
    }
  }
}

/** The level of `topic` that begins at `at`. */
function levelAt(topic: string, at: number): string {
  const end = topic.indexOf('/', at)
  return end === -1 ? topic.slice(at) : topic.slice(at, end)
}

/** Characters of the levels, the first one included, that `label` and `topic` from `at` on have in common. */
function sharedLength(label: string, topic: string, at: number): number {
  if (label.length <= topic.length - at && topic.startsWith(label, at)) {
    const next = at + label.length
    if (next === topic.length || topic[next] === '/') return label.length
  }
  let shared = 0
  for (let end = label.indexOf('/'); end !== -1; end = label.indexOf('/', end + 1)) {
    const isSame = topic.startsWith(label.slice(shared, end), at + shared)
    const isLevel = at + end === topic.length || topic[at + end] === '/'
    if (!isSame || !isLevel) break
    shared = end
  }
  return shared
}

/** Splits a node after the first `length` characters of its label. @returns the upper node */
function split<T>(node: Node<T>, length: number): Node<T> {
  const upper = { label: copyString(node.label.slice(0, length)), value: undefined, children: new Map() }
  node.label = copyString(node.label.slice(length + 1))
  upper.children.set(copyString(levelAt(node.label, 0)), node)
  return upper
}

/**
 * Removes a node without value and children, or merges one without value with its only child. The child is copied, because a search may
 * be about to visit it.
 *
 * @returns whether the node was removed
 */
function prune<T>(siblings: Children<T>, level: string, node: Node<T>): boolean {
  const [only, other] = node.children?.values() ?? []
  if (node.value !== undefined || other) return false
  if (!only) {
    siblings.delete(level)
    return true
  }
  siblings.set(level, { ...only, label: copyString(`${node.label}/${only.label}`) })
  return false
}
