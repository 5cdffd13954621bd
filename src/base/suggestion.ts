import { distance } from 'fastest-levenshtein'

/**
 * The name that somebody meant who wrote another one; `undefined` where none is near: so many letters may be wrong as the third part of
 * it, one at least, or two be swapped.
 */
export function nearestName(written: string, names: readonly string[]): string | undefined {
  const most = Math.max(1, Math.floor(written.length / 3))
  let nearest: string | undefined
  let least = Number.POSITIVE_INFINITY
  for (const name of names) {
    const wrong = sameLetters(written, name) ? Math.min(1, distance(written, name)) : distance(written, name)
    if (wrong <= most && wrong < least && wrong < name.length) {
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

/** Whether two words differ in the order of two letters, as typed in a hurry. */
function sameLetters(one: string, other: string): boolean {
  return distance(one, other) === 2 && [...one].sort().join('') === [...other].sort().join('')
}
