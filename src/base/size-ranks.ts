/** Filters ordered by their number of listeners. */
export class SizeRanks {
  readonly #filters = new Map<number, Set<string>>()

  /**
   * Call when a filter has one more listener, or one less.
   *
   * @param size the new number of listeners
   */
  change(filter: string, size: number, by: 1 | -1): void {
    const before = size - by
    const former = this.#filters.get(before)
    if (former?.delete(filter) && former.size === 0) this.#filters.delete(before)
    if (size === 0) return
    const now = this.#filters.get(size)
    if (now) now.add(filter)
    else this.#filters.set(size, new Set([filter]))
  }

  /** Sizes and filters, largest first. Sorts only the distinct sizes: at most 1000 for 500,000 listeners. */
  *largest(): Generator<readonly [number, string], void, void> {
    for (const size of [...this.#filters.keys()].sort((a, b) => b - a)) {
      for (const filter of this.#filters.get(size) ?? []) yield [size, filter]
    }
  }
}
