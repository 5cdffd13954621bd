import { distance } from 'fastest-levenshtein'

/**
 * Returns the name nearest to a misspelled one; `undefined` if none is near. A third of the letters may be wrong, at least one, or two
 * swapped.
 */
export function nearestName(written: string, names: readonly string[]): string | undefined {
  const maxWrong = Math.max(1, Math.floor(written.length / 3))
  let nearest: string | undefined
  let least = Number.POSITIVE_INFINITY
  for (const name of names) {
    const wrong = sameLetters(written, name) ? Math.min(1, distance(written, name)) : distance(written, name)
    if (wrong <= maxWrong && wrong < least && wrong < name.length) {
      nearest = name
      least = wrong
    }
  }
  return nearest
}

/** The end of an error that begins with “is not an option”. */
export function suggestion(nearest: string | undefined, otherwise = ''): string {
  return nearest === undefined ? otherwise : `; did you mean ${nearest}?`
}

/** Whether two words differ in the order of two letters. */
function sameLetters(one: string, other: string): boolean {
  return distance(one, other) === 2 && [...one].sort().join('') === [...other].sort().join('')
}
