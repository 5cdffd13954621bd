import { z } from 'zod'
import { isUserName } from '../base/identity.js'
import { filterDepthProblem, topicFilterProblem } from '../topics/topic-syntax.js'

/*
 * What a query says of a subscription, for all transports. Messages follow the parameter's name: `topic must …`.
 */

/** Topic filters that one request may name. */
export const maxTopics = 100

/** Of the newest events that a newcomer may ask for. */
export const maxLast = 10_000

/** A longer text is no cursor of ours: an id has at most 32 characters. */
export const maxCursorLength = 64

/** What is wrong with a topic filter that somebody wants to listen to, as it follows its name; if anything is. */
export function listenFilterProblem(filter: string): string | undefined {
  return topicFilterProblem(filter) ?? filterDepthProblem(filter)
}

/**
 * A level that is one space comes of a `+` in a URL that is not encoded: the wildcard would be lost without a word.
 *
 * @returns what is wrong with a topic, or a filter, in a query, as it follows its name; if anything is
 */
export function unescapedPlusProblem(topic: string): string | undefined {
  return topic.split('/').includes(' ') ? 'must not have a level that is one space: + is %2B in a URL' : undefined
}

/** A topic filter that can be listened to, as a member of a body. */
export const topicFilter = z
  .string()
  .superRefine((filter, context) => {
    const problem = listenFilterProblem(filter)
    if (problem !== undefined) context.addIssue(problem)
  })
  .describe('A topic filter as in MQTT: news/+/sport, news/#')

/** A parameter that may come several times, as a list. */
function repeatable<T extends z.ZodType>(list: T) {
  return z.preprocess(value => (typeof value === 'string' ? [value] : value), list)
}

/** Of a parameter that came several times, the last one counts. */
function lastOf(value: unknown): unknown {
  return Array.isArray(value) ? value.at(-1) : value
}

/** `true` or `false`; left out for false. */
export function flag(fallback = false) {
  return z
    .enum(['true', 'false'], { error: 'must be true or false' })
    .default(fallback ? 'true' : 'false')
    .transform(text => text === 'true')
}

/** A whole number in digits, from `least` to `most`. */
export function count(least: number, most: number) {
  const error = `must be a whole number from ${least} to ${most}`
  const digits = (value: unknown): unknown =>
    typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value
  return z.preprocess(digits, z.int({ error }).min(least, { error }).max(most, { error }))
}

/**
 * Where to go on, in whatever text a client has: a text that is no cursor is not wrong here, because some clients get an
 * answer out of the hub (a gap) and others an error. An empty one is none, so that a page need not leave it out.
 */
const cursor = z
  .preprocess(lastOf, z.string())
  .transform(text => (text === '' ? undefined : text.slice(0, maxCursorLength)))
  .describe('Where to go on: the id of the last event that is known, or a cursor that was given')

/** A name that somebody gives to their device. */
export const deviceName = z
  .string()
  .refine(isUserName, 'must have 1 to 255 bytes, and no control characters')
  .describe('A name for the device, where the identity says none')

/** What all subscriptions by query have. */
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
    .describe('How many of the newest events come first, after what is retained, where there is no cursor'),
  json: flag().describe('Whether a payload that is JSON also comes as what it says, under json'),
  device: deviceName.optional(),
}
