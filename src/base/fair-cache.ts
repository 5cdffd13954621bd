import { FairQuota } from './fair-quota.js'

interface Entry<V> {
  readonly owner: string
  readonly value: V
}

/**
 * A bounded cache whose values have owners, such as networks. A new value of an owner with as many as are left for all others evicts the
 * owner's oldest, so that no owner evicts the values of others.
 */
export class FairCache<V> {
  readonly #quota: FairQuota
  readonly #entries = new Map<string, Entry<V>>()
  /** The keys of each owner, oldest first. */
  readonly #owners = new Map<string, Set<string>>()

  /** @param max number of values */
  constructor(max: number) {
    this.#quota = new FairQuota(max)
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: string): V | undefined {
    return this.#entries.get(key)?.value
  }

  /** Adds a value; does not, if there is no room although its owner has none. */
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
