import { FilterSet } from './filter-set.js'

/** One level of the topics that begin alike. */
interface Level<T> {
  readonly children: Map<string, Level<T>>
  value?: T
}

/**
 * Values by topic name: finds those that filters match, in time that depends on how many those are and not on how many
 * there are. Wildcards as in `topics.ts`.
 */
export class TopicTree<T> {
  readonly #values = new Map<string, T>()
  readonly #root: Level<string> = { children: new Map() }

  get size(): number {
    return this.#values.size
  }

  get(topic: string): T | undefined {
    return this.#values.get(topic)
  }

  set(topic: string, value: T): void {
    if (!this.#values.has(topic)) {
      let level = this.#root
      for (const word of topic.split('/')) {
        let child = level.children.get(word)
        if (!child) {
          child = { children: new Map() }
          level.children.set(word, child)
        }
        level = child
      }
      level.value = topic
    }
    this.#values.set(topic, value)
  }

  delete(topic: string): void {
    if (!this.#values.delete(topic)) return
    const words = topic.split('/')
    const path = [this.#root]
    for (const word of words) {
      const child = path.at(-1)?.children.get(word)
      if (!child) return
      path.push(child)
    }
    const last = path.at(-1)
    if (last) delete last.value
    for (let depth = words.length; depth > 0; depth--) {
      const level = path[depth]
      if (level === undefined || level.value !== undefined || level.children.size > 0) return
      path[depth - 1]?.children.delete(words[depth - 1] ?? '')
    }
  }

  /**
   * Looks for the topics that any of `filters` matches, which are valid: each step takes one level further, and has its
   * topic where that matches. What is set meanwhile may be found or not.
   */
  *match(filters: readonly string[]): Generator<string | undefined, void, void> {
    const { topics, patterns } = new FilterSet(filters)
    for (const topic of topics) yield this.#values.has(topic) ? topic : undefined
    // Not by recursion: a topic may have more levels than there is stack.
    const path = [patterns.among(this.#root.children)[Symbol.iterator]()]
    for (let level = path.at(-1); level; level = path.at(-1)) {
      const { value, done } = level.next()
      if (done === true) path.pop()
      else {
        const [{ value: topic, children }, match] = value
        yield topic !== undefined && match.isWhole && !topics.has(topic) ? topic : undefined
        if (children.size > 0) path.push(match.among(children)[Symbol.iterator]())
      }
    }
  }
}
