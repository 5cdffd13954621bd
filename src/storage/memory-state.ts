import {
  type SharedState,
  type StateBounds,
  type StateChange,
  type StateCollection,
  StateFullError,
  type StateRecord,
  sizeOf,
  type UsageReport,
} from './shared-state.js'

interface Entry extends StateChange {
  readonly version: string
  readonly bytes: number
  /** Of the last change. */
  readonly time: number
}

interface Owner {
  /** Oldest first. */
  readonly keys: Set<string>
  bytes: number
}

/** The state of a gateway alone. */
export class MemoryState implements SharedState {
  readonly #now: () => number
  readonly #collections = new Map<string, StateCollection>()

  /** @param now monotonic milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  collection(name: string, bounds: StateBounds): StateCollection {
    const collection = this.#collections.get(name) ?? new MemoryCollection(bounds, this.#now)
    this.#collections.set(name, collection)
    return collection
  }

  async exchange(): Promise<readonly UsageReport[]> {
    return []
  }
}

class MemoryCollection implements StateCollection {
  readonly #bounds: StateBounds
  readonly #now: () => number
  /** The longest unchanged first. */
  readonly #entries = new Map<string, Entry>()
  readonly #owners = new Map<string, Owner>()
  #bytes = 0
  #versions = 0

  constructor(bounds: StateBounds, now: () => number) {
    this.#bounds = bounds
    this.#now = now
  }

  async get(key: string): Promise<StateRecord> {
    const { value, version = '', time = 0 } = this.#find(key) ?? {}
    return { value, version, age: version === '' ? 0 : this.#now() - time }
  }

  async set(key: string, version: string, change: StateChange | undefined): Promise<string | undefined> {
    if ((this.#find(key)?.version ?? '') !== version) return undefined
    if (!change) {
      this.#drop(key)
      return ''
    }
    const bytes = sizeOf(key, change)
    const { maxBytes, maxBytesPerOwner, whenFull } = this.#bounds
    if (bytes > Math.min(maxBytes, maxBytesPerOwner)) throw new StateFullError()
    this.#drop(key)
    this.#evictOf(change.owner, bytes)
    if (whenFull === 'refuse' && version === '' && this.#isOver(1, bytes)) throw new StateFullError()
    const entry: Entry = { ...change, version: String(++this.#versions), bytes, time: this.#now() }
    this.#add(key, entry)
    while (this.#isOver(0, 0) && this.#evictOfLargest(key)) {}
    return entry.version
  }

  #find(key: string): Entry | undefined {
    const oldest = this.#now() - this.#bounds.maxAge
    for (const [each, { time }] of this.#entries) {
      if (time > oldest) break
      this.#drop(each)
    }
    return this.#entries.get(key)
  }

  #isOver(entries: number, bytes: number): boolean {
    const { maxEntries, maxBytes } = this.#bounds
    return this.#entries.size + entries > maxEntries || this.#bytes + bytes > maxBytes
  }

  /** Makes room within the bounds of one owner. */
  #evictOf(name: string, bytes: number): void {
    const { maxEntriesPerOwner, maxBytesPerOwner } = this.#bounds
    const owner = this.#owners.get(name)
    for (const key of owner?.keys ?? []) {
      if (owner && owner.keys.size < maxEntriesPerOwner && owner.bytes + bytes <= maxBytesPerOwner) return
      this.#drop(key)
    }
  }

  /** Evicts the oldest entry of the owner with the most, but not `except`. @returns whether there was one */
  #evictOfLargest(except: string): boolean {
    const byNumber = this.#entries.size > this.#bounds.maxEntries
    let [largest, size]: [string | undefined, number] = [undefined, 0]
    for (const { keys, bytes } of this.#owners.values()) {
      const [oldest] = keys
      const own = byNumber ? keys.size : bytes
      if (oldest !== except && own > size) [largest, size] = [oldest, own]
    }
    if (largest !== undefined) this.#drop(largest)
    return largest !== undefined
  }

  #add(key: string, entry: Entry): void {
    const owner = this.#owners.get(entry.owner) ?? { keys: new Set(), bytes: 0 }
    this.#owners.set(entry.owner, owner)
    owner.keys.add(key)
    owner.bytes += entry.bytes
    this.#bytes += entry.bytes
    this.#entries.set(key, entry)
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key)
    if (!entry) return
    this.#entries.delete(key)
    this.#bytes -= entry.bytes
    const owner = this.#owners.get(entry.owner)
    if (!owner) return
    owner.keys.delete(key)
    owner.bytes -= entry.bytes
    if (owner.keys.size === 0) this.#owners.delete(entry.owner)
  }
}
