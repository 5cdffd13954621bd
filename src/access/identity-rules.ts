import { z } from 'zod'
import { ruleFilterProblem } from '../topics/rule-filter.js'

/** Filters of one identity for each direction; each may be matched for each of its messages. */
const maxFilters = 100

const filter = z.string().superRefine((text, context) => {
  const problem = ruleFilterProblem(text)
  if (problem !== undefined) context.addIssue(problem)
})

/** The topic filters in a token or in a webhook's response, with the syntax of an access rule. */
export const identityFilters = z.array(filter).max(maxFilters, { error: `must have at most ${maxFilters} filters` })

/** The first issue in one sentence: its path, and what would be valid. */
export function firstProblem({ issues }: z.ZodError): string {
  const [issue] = issues
  if (issue === undefined) return 'is not right'
  return issue.path.length === 0 ? issue.message : `${issue.path.join('.')}: ${issue.message}`
}
