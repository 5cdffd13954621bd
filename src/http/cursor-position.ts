/** What comes before a cursor in a query. */
export const cursorName = 'cursor='

/** Where a cursor is in a target: its value, from `start` to before `end`. */
export interface CursorPosition {
  readonly start: number
  readonly end: number
}

/** Whether a cursor is written so that there is nothing to be decoded, as those that are given here. */
export function isPlainCursor(cursor: string): boolean {
  return /^[0-9a-z-]+$/.test(cursor)
}

/** Where a target has its only cursor, where that is plain and has at most `longest` characters. */
export function cursorIn(url: string, longest: number): CursorPosition | undefined {
  const query = url.search(/[?;#]/) + 1
  const at = url.indexOf(cursorName, query)
  if (query === 0 || at === -1 || url.includes(cursorName, at + 1)) return undefined
  if (at !== query && url[at - 1] !== '&') return undefined
  const start = at + cursorName.length
  const next = url.indexOf('&', start)
  const end = next === -1 ? url.length : next
  return end - start <= longest && isPlainCursor(url.slice(start, end)) ? { start, end } : undefined
}
