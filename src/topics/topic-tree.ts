import { FilterSet, type PartMatch } from './filter-set.js'
import { ownText } from './own-text.js'

/** Topics that begin alike. Every node but those with a value has two children at least. */
interface Node<T> {
  /** The levels between its parent and itself, one or more, with the slashes between them. */
  label: string
  value: T | undefined
  /** By the first level of their labels. */
  children: Children<T> | undefined
}

type Children<T> = Map<string, Node<T>>

/** Nodes below one node that are yet to be looked at. */
interface Branch<T> {
  /** The levels above them, with a slash at the end. */
  readonly prefix: string
  readonly nodes: Iterator<[Node<T>, PartMatch] | undefined>
}

/**
 * Values by topic name: finds the topics that filters match in time that depends on how many those are, not on how many there are.
 * Wildcards as in MQTT 3.1.1 §4.7. `undefined` is no value.
 *
 * Levels without a branch share a node: there are at most two nodes for each topic, and memory follows the characters of the topics,
 * however many levels they have. It keeps no text that it was given alive.
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
      const node: Node<T> | undefined = children.get(wordAt(topic, at))
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
      const word = wordAt(topic, at)
      let node = children.get(word)
      if (!node) {
        const label = ownText(topic.slice(at))
        children.set(word.length === label.length ? label : ownText(word), { label, value, children: undefined })
        this.#size++
        return
      }
      const shared = sharedLength(node.label, topic, at)
      if (shared < node.label.length) {
        node = split(node, shared)
        children.set(word, node)
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
    const path: { readonly siblings: Children<T>; readonly word: string; readonly node: Node<T> }[] = []
    let siblings: Children<T> | undefined = this.#root
    for (let at = 0; at <= topic.length; ) {
      const word: string = wordAt(topic, at)
      const node: Node<T> | undefined = siblings?.get(word)
      if (!siblings || !node || sharedLength(node.label, topic, at) < node.label.length) return
      path.push({ siblings, word, node })
      at += node.label.length + 1
      siblings = node.children
    }
    const last = path.at(-1)
    if (last?.node.value === undefined) return
    last.node.value = undefined
    this.#size--
    // No further up: a node without a value has another child beside the one that goes.
    for (const step of path.slice(-2).reverse()) if (!tidy(step.siblings, step.word, step.node)) return
  }

  /**
   * Looks for the topics that any of `filters` matches, which are valid: each step takes one node or less, and has its topic where
   * that matches. Topics that are set or deleted meanwhile may be found or not; those that stay are found once.
   */
  *match(filters: readonly string[]): Generator<string | undefined, void, void> {
    const { topics, patterns } = new FilterSet(filters)
    for (const topic of topics) yield this.get(topic) === undefined ? undefined : topic
    // Not by recursion: a topic may have more levels than there is stack.
    const path: Branch<T>[] = [{ prefix: '', nodes: patterns.among(this.#root)[Symbol.iterator]() }]
    for (let branch = path.at(-1); branch; branch = path.at(-1)) {
      const { value: found, done } = branch.nodes.next()
      if (done === true) path.pop()
      const [node, first] = found ?? []
      const match = node && first?.afterRest(node.label)
      if (!node || !match) {
        yield undefined
        continue
      }
      const topic = branch.prefix + node.label
      if (node.children) path.push({ prefix: `${topic}/`, nodes: match.among(node.children)[Symbol.iterator]() })
      yield node.value !== undefined && match.isWhole && !topics.has(topic) ? topic : undefined
    }
  }
}

/** The level of `topic` that begins at `at`. */
function wordAt(topic: string, at: number): string {
  const end = topic.indexOf('/', at)
  return end === -1 ? topic.slice(at) : topic.slice(at, end)
}

/** Characters of the levels, the first one included, in which `label` and `topic` from `at` on are the same. */
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

/** Returns a node of the first `length` characters of `node`'s label, above `node` with the others. */
function split<T>(node: Node<T>, length: number): Node<T> {
  const upper = { label: ownText(node.label.slice(0, length)), value: undefined, children: new Map() }
  node.label = ownText(node.label.slice(length + 1))
  upper.children.set(ownText(wordAt(node.label, 0)), node)
  return upper
}

/**
 * Removes a node without a value and children, and joins one with an only child and that: returns whether it was removed. The child
 * stays as it is, because a walk may be about to look at it.
 */
function tidy<T>(siblings: Children<T>, word: string, node: Node<T>): boolean {
  const [only, other] = node.children?.values() ?? []
  if (node.value !== undefined || other) return false
  if (!only) {
    siblings.delete(word)
    return true
  }
  siblings.set(word, { ...only, label: ownText(`${node.label}/${only.label}`) })
  return false
}
