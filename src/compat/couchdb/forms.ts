import type { Journal } from '../../journal/journal.js'
import { scriptEnd, scriptStart } from '../../transports/jsonp.js'
import type { PollFormat } from '../../transports/poll/poll-response.js'
import { endingRefusal } from './refusals.js'
import { sequenceOf } from './sequence.js'

/** What is behind the rows: where to go on, and how many there are after that. */
export function lastWords(cursor: string | undefined, pending: number): string {
  return `"last_seq":${sequenceOf(cursor) ?? 0},"pending":${pending}}`
}

/**
 * How many changes there may be after a place, at the most: those of other databases count, because nobody knows whose they
 * are without reading them.
 */
export function mostAfter({ head }: Pick<Journal, 'head'>, cursor: string | undefined): number {
  return Math.max(0, head - (sequenceOf(cursor) ?? 0))
}

/** What is round the rows of an answer. */
export function listForm(journal: Journal, callback: string | undefined): PollFormat {
  const start = '{"results":['
  const end: PollFormat['end'] = ({ cursor, isAll }) => `],${lastWords(cursor, isAll ? 0 : mostAfter(journal, cursor))}`
  if (callback === undefined) return { start, end: last => `${end(last)}\n`, refusal: endingRefusal }
  return {
    start: scriptStart(callback) + start,
    end: last => `${end(last)}${scriptEnd}\n`,
    refusal: endingRefusal,
  }
}
