import { FairQuota } from './fair-quota.js'

interface Entry<V> {
  readonly owner: string
  readonly value: V
}

/**
 * Remembers so many values, each for an owner such as a network. An owner who has as many as are left for all others has its own
 * oldest forgotten for a new one: nobody's flood has the values of others forgotten.
 */
export class FairCache<V> {
  readonly #quota: FairQuota
  readonly #entries = new Map<string, Entry<V>>()
  /** The keys of each owner, the oldest first. */
  readonly #owners = new Map<string, Set<string>>()

  /** @param max values in all */
  constructor(max: number) {
    this.#quota = new FairQuota(max)
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: string): V | undefined {
    return this.#entries.get(key)?.value
  }

  /** Remembers `value`, for as long as there is room for it: with as many owners as values not at all. */
  set(key: string, owner: string, value: V): void {
    this.delete(key)
    const own = this.#owners.get(owner) ?? new Set()
    for (const oldest of own) {
      if (!this.#quota.exceededBy(owner, 1)) break
      this.delete(oldest)
    }
    if (this.#quota.exceededBy(owner, 1)) return
    this.#quota.take(owner, 1)
    this.#entries.set(key, { owner, value })
    this.#owners.set(owner, own.add(key))
  }

  delete(key: string): void {
    const entry = this.#entries.get(key)
    if (!entry) return
    const { owner } = entry
    this.#entries.delete(key)
    this.#quota.giveBack(owner, 1)
    const own = this.#owners.get(owner)
    own?.delete(key)
    if (own?.size === 0) this.#owners.delete(owner)
  }
}
