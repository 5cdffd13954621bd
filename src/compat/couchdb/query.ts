import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { isUserName } from '../../base/identity.js'
import { callbackPattern } from '../../transports/jsonp.js'
import { lastEventIdsOf } from '../../transports/last-event-id.js'
import type { Since } from './positions.js'

/*
 * The query of _changes. Unknown parameters are ignored, as in CouchDB: jquery-jsonp adds `_1290000000000=`.
 */

/** Bounds of the heartbeat interval, in milliseconds. */
const [minHeartbeat, maxHeartbeat] = [1000, 60_000]

function last<T extends z.ZodType>(schema: T) {
  return z.preprocess(value => (Array.isArray(value) ? value.at(-1) : value), schema)
}

const digits = /^\d{1,16}$/
const wholeNumber = z
  .string()
  .refine(text => digits.test(text) && Number.isSafeInteger(Number(text)), 'must be a whole number')
  .transform(Number)

/** Anything but `true` is false, as in CouchDB. */
const flag = last(z.string().optional()).transform(text => text === 'true')

const since = last(
  z
    .union([z.literal('now'), wholeNumber], { error: 'must be a whole number, or now' })
    .default(0)
    .transform((value): Since => value),
)

const heartbeat = last(
  z
    .union(
      [z.literal('false').transform(() => undefined), z.literal('true').transform(() => maxHeartbeat), wholeNumber],
      {
        error: 'must be a whole number of milliseconds, or true',
      },
    )
    .optional(),
).transform(interval => (interval === undefined ? undefined : Math.min(Math.max(interval, minHeartbeat), maxHeartbeat)))

const feed = last(
  z
    .enum(['normal', 'longpoll', 'continuous', 'live', 'eventsource'], {
      error: 'must be normal, longpoll, continuous or eventsource',
    })
    .default('normal')
    .transform(name => (name === 'live' ? 'continuous' : name)),
)

export const callbackField = last(
  z.string().regex(callbackPattern, 'must have 1 to 128 letters, digits, and . _ [ ]').optional(),
)

/** Parameters that select or reorder rows: to ignore them would give a wrong response. */
const unavailable = last(z.undefined({ error: 'is not available here' }))

export const databaseQuery = z.object({ callback: callbackField })

export const changesQuery = z.object({
  callback: callbackField,
  feed,
  since,
  include_docs: flag,
  /** 0 means 1, as in CouchDB. */
  limit: last(wholeNumber.optional()).transform(limit => (limit === 0 ? 1 : limit)),
  /** In milliseconds. */
  timeout: last(wholeNumber.optional()),
  heartbeat,
  /** The device's name in presence; an extension of mqway. */
  device: last(z.string().refine(isUserName, 'must have 1 to 255 bytes, and no control characters').optional()),
  filter: unavailable,
  descending: last(z.literal('false', { error: 'is not available here' }).optional()),
})

/** The query of a POST, which has no JSONP. */
export const postedChangesQuery = changesQuery.extend({ callback: unavailable })

export type ChangesQuery = z.output<typeof changesQuery>

/** Digits of a sequence in Last-Event-ID. */
const maxDigits = 16

/**
 * The position from which a reconnecting EventSource continues: the newest one of its last event ids and `since`. Sequences beyond the
 * journal's head are from another journal, and count only if there is no other; invalid ids do not count.
 *
 * @param head the newest sequence of the journal
 */
export function newestSince(request: FastifyRequest, since: Since, head: number): Since {
  const ids = lastEventIdsOf(request, maxDigits + 1).filter(id => wholeNumber.safeParse(id).success)
  if (ids.length === 0) return since
  const all = [...ids.map(Number), ...(since === 'now' ? [] : [since])]
  const reached = all.filter(number => number <= head)
  return Math.max(...(reached.length > 0 ? reached : all))
}
