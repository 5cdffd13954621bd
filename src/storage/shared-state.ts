/** Bounds of the entries of a collection. */
export interface StateBounds {
  /** Milliseconds from the last change of an entry until it expires. */
  readonly maxAge: number
  readonly maxEntries: number
  /** Bytes of keys, owners and values, with 200 for each entry. */
  readonly maxBytes: number
  /** Of one owner, whose oldest entries are evicted beyond it. */
  readonly maxEntriesPerOwner: number
  readonly maxBytesPerOwner: number
  /** Beyond the bounds of all owners, the oldest entry of the owner with the most is evicted, or a new one refused. */
  readonly whenFull: 'evict' | 'refuse'
}

/** An entry, or that there is none. */
export interface StateRecord {
  /** `undefined` without an entry. */
  readonly value: string | undefined
  /** Another one after each change; empty without an entry. */
  readonly version: string
  /** Milliseconds since the last change, by the clock of the state; 0 without an entry. */
  readonly age: number
}

export interface StateChange {
  readonly value: string
  /** The user or address that the entry counts for, without U+0000. */
  readonly owner: string
}

/** Entries with an owner, by key; each change replaces a known version. */
export interface StateCollection {
  get(key: string): Promise<StateRecord>
  /**
   * Stores an entry, or deletes it, if it has this version.
   *
   * @param change `undefined` to delete it
   * @returns its version, empty after deletion; `undefined` if it had another one
   * @throws {StateFullError} rejects with it
   */
  set(key: string, version: string, change: StateChange | undefined): Promise<string | undefined>
}

/** Tokens of a rate limit that a key has spent. */
export interface Usage {
  /** Name of the rate limit. */
  readonly limit: string
  readonly key: string
  readonly amount: number
}

/** Usage that one gateway has reported. */
export interface UsageReport {
  /** Milliseconds since then. */
  readonly age: number
  readonly usage: readonly Usage[]
}

/**
 * Small state: tickets, keys of requests, counts. That of a gateway alone is in its memory; several gateways share it. If it is away, all
 * methods reject within some seconds, and a change may have been made nevertheless.
 */
export interface SharedState {
  /** @param name of letters; gateways that share a collection give it the same bounds */
  collection(name: string, bounds: StateBounds): StateCollection
  /**
   * Reports usage. Reports of the last ten seconds are kept, within a bound; older ones are lost.
   *
   * @returns the reports of all others since the last call, oldest first; not necessarily all of them at once
   */
  exchange(usage: readonly Usage[]): Promise<readonly UsageReport[]>
}

/** The entry does not fit. */
export class StateFullError extends Error {
  override readonly name = 'StateFullError'

  constructor() {
    super('the shared state has no room for another entry')
  }
}

/** Bytes of an entry, about. */
export function sizeOf(key: string, { owner, value }: StateChange): number {
  return 200 + Buffer.byteLength(key) + Buffer.byteLength(owner) + Buffer.byteLength(value)
}

/** Attempts of one change; each means that another one was faster. */
const maxAttempts = 50

/** What becomes of an entry; `change` left out to leave it, `delete` to delete it. */
export interface Decision<T> {
  readonly change?: StateChange | 'delete'
  readonly result: T
}

/**
 * Changes an entry, depending on what it is. Rejects as `StateCollection`.
 *
 * @param decide called again if another change was faster
 */
export async function updateState<T>(
  collection: StateCollection,
  key: string,
  decide: (record: StateRecord) => Decision<T>,
): Promise<{ readonly result: T; readonly version: string }> {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const record = await collection.get(key)
    const { change, result } = decide(record)
    if (change === undefined) return { result, version: record.version }
    const version = await collection.set(key, record.version, change === 'delete' ? undefined : change)
    if (version !== undefined) return { result, version }
  }
  throw new Error('an entry of the shared state has too many concurrent changes')
}
