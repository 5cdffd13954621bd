import { formatId, parseId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'

/** A place in the changes of a database, or after the last one. */
export type Since = number | 'now'

/**
 * The cursor of a place. One that has been trimmed is that before the oldest event that is still there; so is one that
 * this journal has not come to yet, which is of another: as in CouchDB with a database that was restored, its changes are
 * told from the start.
 */
export function cursorOf({ epoch, first, head }: Pick<Journal, 'epoch' | 'first' | 'head'>, since: Since): string {
  if (since === 'now') return formatId(epoch, head)
  const oldest = first - 1
  return formatId(epoch, since > head ? oldest : Math.max(since, oldest))
}

/** The number of a place that the hub speaks of; `undefined` where it has none. */
export function sequenceOf(cursor: string | undefined): number | undefined {
  return cursor === undefined ? undefined : parseId(cursor)?.sequence
}
