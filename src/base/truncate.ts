/**
 * Truncates a text to `max` UTF-16 code units, followed by `…`, without splitting a surrogate pair.
 *
 * @param max at least 1
 */
export function truncate(text: string, max: number): string {
  if (text.length <= max) return text
  const last = text.charCodeAt(max - 1)
  const isHalf = last >= 0xd800 && last < 0xdc00
  return `${text.slice(0, isHalf ? max - 1 : max)}…`
}
