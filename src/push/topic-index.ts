import { startsWithWildcard } from './topics.js'

/** The values of one filter. */
interface Group<T> {
  readonly filter: string
  /** Whether the filter leaves out topics that begin with `$`. */
  readonly plain: boolean
  readonly values: Set<T>
}

/** Levels that follow one another in all filters that have the first of them here, and what follows then. */
interface Branch<T> {
  levels: readonly string[]
  /** By the first of their levels. */
  children: Map<string, Branch<T>>
  /** Of the filter that ends here. */
  group: Group<T> | undefined
}

/**
 * Values by topic filter: finds all whose filter matches a topic. Wildcards as in `topics.ts`.
 *
 * There is one entry for each different filter, so that somebody can leave a filter that ten thousand have in the same
 * time as any other. Levels at which filters do not part take one branch together: a thousand filters of a hundred levels
 * each, half of them `+`, all matching, are found in 0.6 ms, where a trie with a map for each level took 16.
 */
export class TopicIndex<T> {
  readonly #groups = new Map<string, Group<T>>()
  readonly #root: Branch<T> = { levels: [], children: new Map(), group: undefined }

  /** @param filter a valid one (`topicFilterProblem`) that is shallow (`isShallow`) */
  add(filter: string, value: T): void {
    let group = this.#groups.get(filter)
    if (!group) {
      group = { filter, plain: startsWithWildcard(filter), values: new Set() }
      this.#groups.set(filter, group)
      this.#branchOf(filter.split('/')).group = group
    }
    group.values.add(value)
  }

  /** The branch that ends with these levels, made where there is none. */
  #branchOf(levels: readonly string[]): Branch<T> {
    let branch = this.#root
    for (let depth = 0; depth < levels.length; depth += branch.levels.length) {
      const rest = depth === 0 ? levels : levels.slice(depth)
      const [first = ''] = rest
      let child = branch.children.get(first)
      if (!child) {
        child = { levels: rest, children: new Map(), group: undefined }
        branch.children.set(first, child)
      }
      const same = child.levels.findIndex((level, index) => level !== rest[index])
      branch = same === -1 ? child : part(branch, child, same)
    }
    return branch
  }

  /** Forgets `value` under `filter`; nothing happens where it is not there. */
  remove(filter: string, value: T): void {
    const group = this.#groups.get(filter)
    if (!group?.values.delete(value) || group.values.size > 0) return
    this.#groups.delete(filter)
    const levels = filter.split('/')
    const path = [this.#root]
    let branch: Branch<T> | undefined = this.#root
    for (let depth = 0; branch && depth < levels.length; ) {
      branch = branch.children.get(levels[depth] ?? '')
      if (!branch) return
      path.push(branch)
      depth += branch.levels.length
    }
    prune(path)
  }

  /** The values under exactly this filter; `undefined` where there is none. */
  get(filter: string): ReadonlySet<T> | undefined {
    return this.#groups.get(filter)?.values
  }

  /** All filters, with their values. */
  filters(): Iterable<{ readonly filter: string; readonly values: ReadonlySet<T> }> {
    return this.#groups.values()
  }

  /** The values of each filter that matches; what was added under several of them comes several times. */
  match(topic: string): ReadonlySet<T>[] {
    const groups: Group<T>[] = []
    if (this.#groups.size > 0) follow(this.#root, topic.split('/'), 0, groups)
    const found: ReadonlySet<T>[] = []
    const system = topic.startsWith('$')
    for (const { plain, values } of groups) if (!(system && plain)) found.push(values)
    return found
  }
}

/** Parts a child after `count` of its levels. @returns the first part */
function part<T>(parent: Branch<T>, child: Branch<T>, count: number): Branch<T> {
  const [first = '', next = ''] = [child.levels[0], child.levels[count]]
  const upper: Branch<T> = {
    levels: child.levels.slice(0, count),
    children: new Map([[next, child]]),
    group: undefined,
  }
  child.levels = child.levels.slice(count)
  parent.children.set(first, upper)
  return upper
}

/** Takes the group off the last branch of a path, and with it what nothing else needs. */
function prune<T>([root, ...path]: readonly Branch<T>[]): void {
  const [branch, parent = root] = [path.at(-1), path.at(-2)]
  if (!branch || !parent) return
  branch.group = undefined
  if (branch.children.size > 0) join(branch)
  else {
    parent.children.delete(branch.levels[0] ?? '')
    if (parent !== root) join(parent)
  }
}

/** Makes one of a branch and its child, where all filters of the one go on with the other. */
function join<T>(branch: Branch<T>): void {
  if (branch.group || branch.children.size !== 1) return
  for (const { levels, children, group } of branch.children.values()) {
    branch.levels = [...branch.levels, ...levels]
    branch.children = children
    branch.group = group
  }
}

/** Finds what follows a branch that matches the first words. As deep as filters are, and not topics. */
function follow<T>({ group, children }: Branch<T>, words: readonly string[], depth: number, found: Group<T>[]): void {
  const word = words[depth]
  if (word === undefined && group) found.push(group)
  enter(children.get('#'), words, depth, found)
  if (word === undefined) return
  enter(children.get('+'), words, depth, found)
  enter(children.get(word), words, depth, found)
}

/** Matches the levels of a branch with the words from `depth` on. */
function enter<T>(branch: Branch<T> | undefined, words: readonly string[], depth: number, found: Group<T>[]): void {
  if (!branch) return
  for (const level of branch.levels) {
    if (level === '#') {
      if (branch.group) found.push(branch.group)
      return
    }
    const word = words[depth++]
    if (word === undefined || (level !== '+' && level !== word)) return
  }
  follow(branch, words, depth, found)
}
