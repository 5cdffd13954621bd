import { formatId, parseId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** A position in the changes of a database; `now`: after the last one. */
export type Since = number | 'now'

/**
 * The cursor of a position. An evicted position becomes that before the oldest event. So does one beyond the head, which is from
 * another journal: as after the restore of a database in CouchDB, the changes restart from the beginning.
 */
export function cursorOf({ epoch, first, head }: Pick<Journal, 'epoch' | 'first' | 'head'>, since: Since): string {
  if (since === 'now') return formatId(epoch, head)
  const oldest = first - 1
  return formatId(epoch, since > head ? oldest : Math.max(since, oldest))
}

/** The sequence of a cursor; `undefined` if it has none. */
export function sequenceOf(cursor: string | undefined): number | undefined {
  return cursor === undefined ? undefined : parseId(cursor)?.sequence
}
