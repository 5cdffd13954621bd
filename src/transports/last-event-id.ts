import type { FastifyRequest } from 'fastify'
import { type EventId, parseId } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'

/**
 * The last event ids of a request: of the header `Last-Event-ID` (HTML Living Standard §9.2.4), and of each query parameter of that name in any
 * spelling (`lastEventId`, `Last-Event-ID`, `last_event_id`), for clients that cannot set headers. Empty ones are left out.
 *
 * @param longest characters of each id; the rest is cut off
 * @returns that of the header first, then those of the query in order
 */
export function lastEventIdsOf(
  { headers, query }: Pick<FastifyRequest, 'headers' | 'query'>,
  longest: number,
): string[] {
  const parameters = Object.entries(query ?? {}).filter(([name]) => isLastEventId(name))
  const values: unknown[] = [headers['last-event-id'], ...parameters.flatMap(([, value]) => value)]
  return values.filter(isNonEmptyText).map(id => id.slice(0, longest))
}

function isLastEventId(name: string): boolean {
  return name.length <= 13 && name.replaceAll(/[-_]/g, '').toLowerCase() === 'lasteventid'
}

function isNonEmptyText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

/**
 * The newest of several cursors, because a client may have an older one in its URL than in its header. Cursors that the journal has reached come
 * before those of other journals, and ids before other texts; `undefined` if there are none.
 */
export function newestCursor(cursors: readonly string[], journal: Pick<Journal, 'epoch' | 'head'>): string | undefined {
  let newest: { readonly cursor: string; readonly id: EventId | undefined } | undefined
  for (const cursor of cursors) {
    const id = parseId(cursor)
    if (newest === undefined || (id && isNewer(id, newest.id, journal))) newest = { cursor, id }
  }
  return newest?.cursor
}

function isNewer(id: EventId, than: EventId | undefined, { epoch, head }: Pick<Journal, 'epoch' | 'head'>): boolean {
  if (than === undefined) return true
  const isReached = (id: EventId): boolean => id.epoch === epoch && id.sequence <= head
  if (isReached(id) !== isReached(than)) return isReached(id)
  return id.epoch === than.epoch ? id.sequence > than.sequence : id.epoch > than.epoch
}
