/** Counts by key that several worker processes keep together, as one of them sees those of the others. */
export interface OtherCounts {
  /** What the others count for all keys together. */
  readonly total: number
  /** What the others count for `key`. */
  of(key: string): number
  /** Tells them the count of this process. */
  set(key: string, count: number): void
}

/** The counts of a process without others. */
export const noOtherCounts: OtherCounts = { total: 0, of: () => 0, set: () => {} }
