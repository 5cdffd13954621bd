import { z } from 'zod'
import { filterDepthProblem, topicFilterProblem } from '../topics/topic-syntax.js'

/*
 * The forms of values that several parts of the table of options share.
 */

/** A whole number of which both bounds are allowed. */
export const wholeNumber = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`
  return z.int({ error }).min(min, { error }).max(max, { error })
}

/** The same, or `off`. */
export const wholeNumberOrOff = (min: number, max: number) =>
  z.union([z.literal('off'), z.int().min(min, { error: '', abort: true }).max(max, { error: '', abort: true })], {
    error: `must be off, or a whole number from ${min} to ${max}`,
  })

/** The format of an option that names a file or a directory, in the JSON Schema: none of them is served (see private-files.ts). */
export const fileFormat = 'file'

/** The name of a file; relative ones begin at the working directory. */
export const file = z.string().min(1).meta({ format: fileFormat })

/** What `mqway check` prints in the place of a secret. As a secret it is refused: it would be a wrong one, silently. */
export const redacted = '[redacted]'

/** A secret; `what` is what it is called in the refusal of a redacted one. */
export const secret = (what: string) =>
  z.string().refine(text => text !== redacted, {
    error: `must be the ${what} itself; mqway check prints this in its place`,
  })

/** A URL with `[redacted]` for each value in its query, which may be a secret. */
export function withoutQueryValues(url: string): string {
  const query = url.indexOf('?')
  if (query === -1) return url
  const pairs = url
    .slice(query + 1)
    .split('&')
    .map(pair => (pair === '' ? '' : pair.replace(/^([^=]*=)?.*$/s, `$1${redacted}`)))
  return `${url.slice(0, query)}?${pairs.join('&')}`
}

/** A topic filter, as MQTT has it, that can be listened to. */
export const topicFilter = z.string().superRefine((text, context) => {
  const problem = topicFilterProblem(text) ?? filterDepthProblem(text)
  if (problem !== undefined) context.addIssue(problem)
})
