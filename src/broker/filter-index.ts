/** One level of the filters that begin alike. Made as needed: most have one child and no value, or the reverse. */
interface Level<T> {
  children?: Map<string, Level<T>>
  values?: Set<T>
}

/**
 * Values by MQTT topic filter: finds all whose filter matches a topic name, in time that depends on the topic's levels
 * and not on the number of filters.
 *
 * Wildcards as in MQTT 3.1.1 §4.7: `+` takes one level, also an empty one; `#` takes the rest, the parent level
 * included; neither, at the start of a filter, matches a topic that begins with `$` [MQTT-4.7.2-1].
 */
export class FilterIndex<T> {
  readonly #root: Level<T> = {}

  add(filter: string, value: T): void {
    let level = this.#root
    for (const word of filter.split('/')) {
      level.children ??= new Map()
      let child = level.children.get(word)
      if (!child) {
        child = {}
        level.children.set(word, child)
      }
      level = child
    }
    level.values ??= new Set()
    level.values.add(value)
  }

  /** Forgets `value` under `filter`; nothing happens where it is not there. */
  remove(filter: string, value: T): void {
    const words = filter.split('/')
    const path: Level<T>[] = [this.#root]
    for (const word of words) {
      const child = path.at(-1)?.children?.get(word)
      if (!child) return
      path.push(child)
    }
    path.at(-1)?.values?.delete(value)
    for (let depth = words.length; depth > 0; depth--) {
      const level = path[depth]
      if (!level || level.values?.size || level.children?.size) return
      path[depth - 1]?.children?.delete(words[depth - 1] ?? '')
    }
  }

  /** The values of all filters that match; a value added under several of them comes several times. */
  match(topic: string): T[] {
    const found: T[] = []
    const words = topic.split('/')
    if (topic.startsWith('$')) {
      const child = this.#root.children?.get(words[0] ?? '')
      if (child) collect(child, words, 1, found)
    } else {
      collect(this.#root, words, 0, found)
    }
    return found
  }
}

function collect<T>(level: Level<T>, words: readonly string[], depth: number, found: T[]): void {
  const rest = level.children?.get('#')
  if (rest?.values) append(found, rest.values)
  const word = words[depth]
  if (word === undefined) {
    if (level.values) append(found, level.values)
    return
  }
  const same = level.children?.get(word)
  if (same) collect(same, words, depth + 1, found)
  const any = level.children?.get('+')
  if (any) collect(any, words, depth + 1, found)
}

/** Not `push(...values)`, which takes as many as fit on the stack. */
function append<T>(found: T[], values: ReadonlySet<T>): void {
  for (const value of values) found.push(value)
}
