import { z } from 'zod'
import { isUserName } from '../base/identity.js'
import { filterDepthProblem, topicFilterProblem } from '../topics/topic-syntax.js'

/*
 * The query parameters of a subscription, for all transports. Error texts follow the parameter's name: `topic must …`.
 */

/** Topic filters of one request. */
export const maxTopics = 100

/** Events of `last`. */
export const maxLast = 10_000

/** Characters of a cursor; an id has 32 at most. */
export const maxCursorLength = 64

/** The reason for which a topic filter is refused, as it follows its name; `undefined` for none. */
export function listenFilterProblem(filter: string): string | undefined {
  return topicFilterProblem(filter) ?? filterDepthProblem(filter)
}

/**
 * Refuses a level that is one space: a `+` that is not encoded in the URL.
 *
 * @returns the reason, as it follows the parameter's name; `undefined` for none
 */
export function unescapedPlusProblem(topic: string): string | undefined {
  return topic.split('/').includes(' ') ? 'must not have a level that is one space: + is %2B in a URL' : undefined
}

/** A topic filter, as a member of a body. */
export const topicFilter = z
  .string()
  .superRefine((filter, context) => {
    const problem = listenFilterProblem(filter)
    if (problem !== undefined) context.addIssue(problem)
  })
  .describe('A topic filter as in MQTT: news/+/sport, news/#')

function repeatable<T extends z.ZodType>(list: T) {
  return z.preprocess(value => (typeof value === 'string' ? [value] : value), list)
}

function lastOf(value: unknown): unknown {
  return Array.isArray(value) ? value.at(-1) : value
}

export function flag(fallback = false) {
  return z
    .enum(['true', 'false'], { error: 'must be true or false' })
    .default(fallback ? 'true' : 'false')
    .transform(text => text === 'true')
}

/** A whole number in decimal digits. */
export function count(least: number, most: number) {
  const error = `must be a whole number from ${least} to ${most}`
  const digits = (value: unknown): unknown =>
    typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value
  return z.preprocess(digits, z.int({ error }).min(least, { error }).max(most, { error }))
}

/**
 * A cursor; any text is valid here, because the hub decides between a gap and an error.
 * An empty one is ignored, so that pages may always send the parameter.
 */
const cursor = z
  .preprocess(lastOf, z.string())
  .transform(text => (text === '' ? undefined : text.slice(0, maxCursorLength)))
  .describe('The position to continue from: the id of the last received event, or a cursor from the gateway')

/** A client's name for its device. */
export const deviceName = z
  .string()
  .refine(isUserName, 'must have 1 to 255 bytes, and no control characters')
  .describe('A name for the device, if the credentials contain none')

/** The parameters of every subscription by query. */
export const subscribeFields = {
  topic: repeatable(
    z
      .array(z.string())
      .min(1, 'must not be empty')
      .max(maxTopics, `must come at most ${maxTopics} times`)
      .superRefine((filters, context) => {
        if (filters.length > maxTopics) return
        const problem = filters
          .map(filter => listenFilterProblem(filter) ?? unescapedPlusProblem(filter))
          .find(found => found !== undefined)
        if (problem !== undefined) context.addIssue(problem)
      }),
  ).describe('Topic filters as in MQTT, one in each parameter; + is %2B and # is %23 in a URL'),
  cursor: cursor.optional(),
  last: count(0, maxLast)
    .optional()
    .describe('The number of newest events to send first, after retained messages, without a cursor'),
  json: flag().describe('Whether events have their parsed payload in json, if it is JSON'),
  device: deviceName.optional(),
}
