import { z } from 'zod'
import { isHostPattern, regexProblem } from './forms.js'

/*
 * Conditions about the path and the host of a request, which tunnels and response headers share.
 */

export const hostPattern = z
  .string()
  .refine(isHostPattern, { error: 'must be a.example, *.a.example or /regular expression/' })

const pathPattern = z
  .string()
  .min(1)
  .superRefine((source, context) => {
    const problem = regexProblem(source)
    if (problem !== undefined) context.addIssue(`must be a regular expression: ${problem}`)
  })

/** The names of the options with a path. */
const pathNames = ['path', 'pathPrefix', 'pathSuffix', 'pathPattern'] as const

export const pathConditions = {
  path: z
    .string()
    .startsWith('/', { error: 'must begin with /' })
    .optional()
    .describe('Exact path; a trailing slash makes no difference'),
  pathPrefix: z
    .string()
    .startsWith('/', { error: 'must begin with /' })
    .optional()
    .describe('Prefix of paths, as in lighttpd'),
  pathSuffix: z.string().min(1).optional().describe('Suffix of paths'),
  pathPattern: pathPattern.optional().describe('JavaScript regular expression for paths'),
}

/** The four options with a path, at most one of which is given. */
export type PathConditions = { readonly [name in (typeof pathNames)[number]]?: string | undefined }

/** The names of those that are given. */
export function givenPaths(conditions: PathConditions): string[] {
  return pathNames.filter(name => conditions[name] !== undefined)
}
