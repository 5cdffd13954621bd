/** Keys `>= gte` and `< lt`. */
export interface KeyRange {
  readonly gte: string
  readonly lt: string
}

/** One change of a store. */
export type StoreChange =
  | { readonly type: 'put'; readonly key: string; readonly value: string }
  | { readonly type: 'del'; readonly key: string }

/**
 * A sorted key-value store. Keys are sorted as ASCII; the order of other characters may differ between implementations.
 */
export interface Store {
  get(key: string): Promise<string | undefined>
  /** The first `limit` records of a range. */
  range(range: KeyRange, limit: number): Promise<(readonly [key: string, value: string])[]>
  /** Makes all changes, in order, or none. After it resolves they survive `kill -9`, in a durable store. */
  batch(changes: readonly StoreChange[]): Promise<void>
  /** Deletes a range, not atomically. */
  clear(range: KeyRange): Promise<void>
  /** Later calls reject. Idempotent. */
  close(): Promise<void>
}

/** A store is closed, perhaps because another gateway has it now. */
export class StoreClosed extends Error {
  override readonly name = 'StoreClosed'
}
