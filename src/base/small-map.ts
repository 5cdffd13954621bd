/**
 * A map that stores a single entry without a `Map`, which would take 150 bytes: for large numbers of mostly tiny maps. No value is
 * `undefined`.
 */
export class SmallMap<K, V> {
  /** The only entry, if there is one. */
  #key: K | undefined
  #value: V | undefined
  /** All entries, since there were two. */
  #all: Map<K, V> | undefined

  get size(): number {
    return this.#all ? this.#all.size : this.#value === undefined ? 0 : 1
  }

  get(key: K): V | undefined {
    if (this.#all) return this.#all.get(key)
    return this.#key === key ? this.#value : undefined
  }

  has(key: K): boolean {
    return this.get(key) !== undefined
  }

  set(key: K, value: V): void {
    const all = this.#all ?? this.#grown(key)
    if (all) all.set(key, value)
    else {
      this.#key = key
      this.#value = value
    }
  }

  /** Returns the `Map`, which a second entry creates. */
  #grown(key: K): Map<K, V> | undefined {
    const [only, value] = [this.#key, this.#value]
    if (only === undefined || value === undefined || only === key) return undefined
    this.#all = new Map([[only, value]])
    this.#key = this.#value = undefined
    return this.#all
  }

  delete(key: K): boolean {
    if (this.#all) return this.#all.delete(key)
    if (!this.has(key)) return false
    this.#key = this.#value = undefined
    return true
  }

  keys(): Iterable<K> {
    if (this.#all) return this.#all.keys()
    return this.#key === undefined ? [] : [this.#key]
  }

  values(): Iterable<V> {
    if (this.#all) return this.#all.values()
    return this.#value === undefined ? [] : [this.#value]
  }

  clear(): void {
    this.#key = this.#value = this.#all = undefined
  }
}
