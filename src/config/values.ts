import { z } from 'zod'
import { filterDepthProblem, topicFilterProblem } from '../topics/topic-syntax.js'

/*
 * Types of values that several sections share.
 */

/** A whole number within inclusive bounds. */
export const wholeNumber = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`
  return z.int({ error }).min(min, { error }).max(max, { error })
}

/** The same, or `off`. */
export const wholeNumberOrOff = (min: number, max: number) =>
  z.union([z.literal('off'), z.int().min(min, { error: '', abort: true }).max(max, { error: '', abort: true })], {
    error: `must be off, or a whole number from ${min} to ${max}`,
  })

/** The JSON Schema format of options that name a file or a directory, none of which is ever served (private-files.ts). */
export const fileFormat = 'file'

/** A path; relative ones start from the working directory. */
export const file = z.string().min(1).meta({ format: fileFormat })

/** Printed by `mqway check` instead of a secret. Refused as the value of one. */
export const redacted = '[redacted]'

/** A secret. @param what its name in errors */
export const secret = (what: string) =>
  z.string().refine(text => text !== redacted, {
    error: `must be the ${what} itself; mqway check prints this in its place`,
  })

/** Redacts the values in the query of a URL, which may be secrets. */
export function withoutQueryValues(url: string): string {
  const query = url.indexOf('?')
  if (query === -1) return url
  const pairs = url
    .slice(query + 1)
    .split('&')
    .map(pair => (pair === '' ? '' : pair.replace(/^([^=]*=)?.*$/s, `$1${redacted}`)))
  return `${url.slice(0, query)}?${pairs.join('&')}`
}

/** A topic filter to subscribe to. */
export const topicFilter = z.string().superRefine((text, context) => {
  const problem = topicFilterProblem(text) ?? filterDepthProblem(text)
  if (problem !== undefined) context.addIssue(problem)
})
