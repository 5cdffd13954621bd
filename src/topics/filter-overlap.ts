/** Whether there is a topic that two valid topic filters both match (MQTT 3.1.1 §4.7); a topic is a filter of its own. */
export function filtersOverlap(one: string, other: string): boolean {
  const [ones, others] = [one.split('/'), other.split('/')]
  for (let index = 0; ; index++) {
    const [a, b] = [ones[index], others[index]]
    if (a === '#' || b === '#') {
      const rest = a === '#' ? b : a
      if (index === 0) return !takesSystemOnly(rest)
      // It takes also the level above it alone, which is no topic where it is empty.
      return rest !== undefined || index > 1 || (ones[0] !== '' && others[0] !== '')
    }
    if (a === undefined || b === undefined) return a === b
    if (a === '+' || b === '+') {
      if (index === 0 && takesSystemOnly(a === '+' ? b : a)) return false
    } else if (a !== b) return false
  }
}

/** Wildcards at the start of a filter leave out what begins with `$` [MQTT-4.7.2-1]. */
function takesSystemOnly(first: string | undefined): boolean {
  return first?.startsWith('$') === true
}

/** Whether `outer` matches every topic that `inner` matches; both are valid. Exact but for `+/#`, which covers less than `#`. */
export function filterCovers(outer: string, inner: string): boolean {
  const [outers, inners] = [outer.split('/'), inner.split('/')]
  for (const [index, level] of outers.entries()) {
    const other = inners[index]
    const isSystem = index === 0 && takesSystemOnly(other)
    // At the end of `inners` it is the parent level that `#` includes.
    if (level === '#') return !isSystem
    if (other === undefined || other === '#') return false
    if (level === '+' ? isSystem : level !== other) return false
  }
  return inners.length === outers.length
}
