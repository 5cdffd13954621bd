/** A range of topics: from the first on, up to and without the second. */
export type TopicRange = readonly [from: string, to: string | undefined]

/**
 * The ranges of topics, in the order of their UTF-8 bytes, outside of which none of `filters` matches anything; they do
 * not overlap.
 *
 * The levels before a filter's first wildcard are the same in all topics that it matches. So without a wildcard it is
 * one topic; with one at the start, all of them. `a/#` also matches `a`, and with it come those of `a!` and the like,
 * which sort between `a` and `a/`.
 */
export function topicRanges(filters: readonly string[]): TopicRange[] {
  const ranges = filters.map(rangeOf).sort(([a], [b]) => compare(a, b))
  const merged: TopicRange[] = []
  for (const range of ranges) {
    const last = merged.at(-1)
    if (!last || (last[1] !== undefined && compare(last[1], range[0]) < 0)) merged.push(range)
    else merged[merged.length - 1] = [last[0], later(last[1], range[1])]
  }
  return merged
}

function rangeOf(filter: string): TopicRange {
  const levels = filter.split('/')
  const wildcard = levels.findIndex(level => level === '+' || level === '#')
  if (wildcard === 0) return ['', undefined]
  // No topic sorts between one and the same with U+0000 at its end.
  if (wildcard < 0) return [filter, `${filter}\0`]
  const prefix = levels.slice(0, wildcard).join('/')
  // The character after `/` is `0`.
  return [levels[wildcard] === '#' ? prefix : `${prefix}/`, `${prefix}0`]
}

function later(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return undefined
  return compare(a, b) < 0 ? b : a
}

/** JavaScript's own order is that of UTF-16, which differs beyond U+FFFF. */
function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
