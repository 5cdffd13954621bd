/** Keys from `gte` on, and before `lt`. */
export interface KeyRange {
  readonly gte: string
  readonly lt: string
}

/** One change of a store. */
export type StoreChange =
  | { readonly type: 'put'; readonly key: string; readonly value: string }
  | { readonly type: 'del'; readonly key: string }

/**
 * Texts by key, in the order of their keys. Keys that are compared have the same form as far as they are ASCII; behind
 * that, implementations may differ.
 */
export interface ReceiptStore {
  get(key: string): Promise<string | undefined>
  /** The first `limit` entries of a range. */
  range(range: KeyRange, limit: number): Promise<(readonly [key: string, value: string])[]>
  /** Makes all changes, in their order, or none. Once it resolves, they survive `kill -9` where the store is durable at all. */
  batch(changes: readonly StoreChange[]): Promise<void>
  /** Forgets a range. When the process ends meanwhile, a part of it may be left. */
  clear(range: KeyRange): Promise<void>
  /** What comes after it rejects. Idempotent. */
  close(): Promise<void>
}
