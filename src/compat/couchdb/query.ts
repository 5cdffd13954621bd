import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { isUserName } from '../../base/identity.js'
import { callbackPattern } from '../../transports/jsonp.js'
import { lastEventIdsOf } from '../../transports/last-event-id.js'
import type { Since } from './sequence.js'

/*
 * What the query of _changes says. What is not named here is ignored, as CouchDB does: jquery-jsonp adds `_1290000000000=`.
 */

/** How often an answer that stays open shows that it is alive, at the most and at the least, in milliseconds. */
const [fastestHeartbeat, slowestHeartbeat] = [1000, 60_000]

/** Of a parameter that came several times, the last one counts. */
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
      [z.literal('false').transform(() => undefined), z.literal('true').transform(() => slowestHeartbeat), wholeNumber],
      {
        error: 'must be a whole number of milliseconds, or true',
      },
    )
    .optional(),
).transform(interval =>
  interval === undefined ? undefined : Math.min(Math.max(interval, fastestHeartbeat), slowestHeartbeat),
)

/** A feed answers once, or goes on. */
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

/** What would leave out rows, or turn them round: to ignore it would be a wrong answer. */
const notHere = last(z.undefined({ error: 'is not available here' }))

export const databaseQuery = z.object({ callback: callbackField })

export const changesQuery = z.object({
  callback: callbackField,
  feed,
  since,
  include_docs: flag,
  /** CouchDB takes 0 for 1. */
  limit: last(wholeNumber.optional()).transform(most => (most === 0 ? 1 : most)),
  /** In milliseconds. */
  timeout: last(wholeNumber.optional()),
  heartbeat,
  /** What the one who asks is called in presence; not CouchDB's. */
  device: last(z.string().refine(isUserName, 'must have 1 to 255 bytes, and no control characters').optional()),
  filter: notHere,
  descending: last(z.literal('false', { error: 'is not available here' }).optional()),
})

/** The same with a body, whose answer is no script that any page can load. */
export const postedChangesQuery = changesQuery.extend({ callback: notHere })

export type ChangesQuery = z.output<typeof changesQuery>

/** Characters of a number that a client says it had last. */
const longestNumber = 16

/**
 * Where an EventSource goes on that comes back: after the newest of the numbers that it says it had last, and of `since`. A number that the journal has
 * not come to is from another one, and counts only where there is no other; a text that is none does not.
 *
 * @param head the newest number of the journal
 */
export function newestSince(request: FastifyRequest, since: Since, head: number): Since {
  const ids = lastEventIdsOf(request, longestNumber + 1).filter(id => wholeNumber.safeParse(id).success)
  if (ids.length === 0) return since
  const all = [...ids.map(Number), ...(since === 'now' ? [] : [since])]
  const reached = all.filter(number => number <= head)
  return Math.max(...(reached.length > 0 ? reached : all))
}
