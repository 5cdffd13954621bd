/** One level of the topics that begin alike. */
interface Level<T> {
  readonly children: Map<string, Level<T>>
  value?: T
}

/**
 * Values by topic name: finds those that a filter matches, in time that depends on how many those are and not on how many
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

  /** The topics that any of `filters` matches, each once. The filters are valid and shallow. */
  match(filters: readonly string[]): string[] {
    const found = new Set<string>()
    for (const filter of filters) {
      if (!filter.includes('+') && !filter.includes('#')) {
        if (this.#values.has(filter)) found.add(filter)
      } else collect(this.#root, filter.split('/'), 0, found)
    }
    return [...found]
  }
}

function collect(level: Level<string>, words: readonly string[], depth: number, found: Set<string>): void {
  const word = words[depth]
  if (word === undefined) {
    if (level.value !== undefined) found.add(level.value)
  } else if (word === '#') {
    collectAll(level, depth === 0, found)
  } else if (word === '+') {
    for (const [name, child] of level.children) {
      if (!(depth === 0 && name.startsWith('$'))) collect(child, words, depth + 1, found)
    }
  } else {
    const child = level.children.get(word)
    if (child) collect(child, words, depth + 1, found)
  }
}

/** Not by recursion: a topic may have more levels than there is stack. */
function collectAll(from: Level<string>, withoutSystem: boolean, found: Set<string>): void {
  const levels: Level<string>[] = []
  if (from.value !== undefined) found.add(from.value)
  for (const [name, child] of from.children) if (!(withoutSystem && name.startsWith('$'))) levels.push(child)
  for (let level = levels.pop(); level; level = levels.pop()) {
    if (level.value !== undefined) found.add(level.value)
    for (const child of level.children.values()) levels.push(child)
  }
}
