/** Filters by how many listeners each has, so that those with the most are found without a look at the others. */
export class SizeRanks {
  readonly #filters = new Map<number, Set<string>>()

  /**
   * A filter has one more listener, or one less.
   *
   * @param size listeners that it has now; 0 for none any more
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

  /** Sizes and filters, those with the most listeners first. It sorts the sizes that there are: 1000 where there are 500,000 listeners. */
  *largest(): Generator<readonly [number, string], void, void> {
    for (const size of [...this.#filters.keys()].sort((a, b) => b - a)) {
      for (const filter of this.#filters.get(size) ?? []) yield [size, filter]
    }
  }
}
