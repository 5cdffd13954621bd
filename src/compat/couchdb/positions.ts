import { formatId, parseId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import { scriptEnd, scriptStart } from '../../transports/jsonp.js'
import type { PollFormat } from '../../transports/poll/poll-response.js'
import { errorBody } from './refusals.js'

/** The end of a list: the position to continue from, and the number of changes after it. */
export function listEnd(cursor: string | undefined, pending: number): string {
  return `"last_seq":${sequenceOf(cursor) ?? 0},"pending":${pending}}`
}

/** Upper bound of the changes after a position. It includes those of other databases, which only reading would tell apart. */
export function maxPending({ head }: Pick<Journal, 'head'>, cursor: string | undefined): number {
  return Math.max(0, head - (sequenceOf(cursor) ?? 0))
}

/** The start and end of a list of rows. */
export function listFormat(journal: Journal, callback: string | undefined): PollFormat {
  const start = '{"results":['
  const end: PollFormat['end'] = ({ cursor, isAll }) => `],${listEnd(cursor, isAll ? 0 : maxPending(journal, cursor))}`
  if (callback === undefined) return { start, end: last => `${end(last)}\n`, refusal: errorBody }
  return {
    start: scriptStart(callback) + start,
    end: last => `${end(last)}${scriptEnd}\n`,
    refusal: errorBody,
  }
}

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
