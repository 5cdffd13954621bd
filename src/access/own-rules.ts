import { z } from 'zod'
import { ruleFilterProblem } from '../topics/rule-filter.js'

/** So many filters for each direction may somebody bring along; each is looked at for messages of theirs. */
const maxFilters = 100

const filter = z.string().superRefine((text, context) => {
  const problem = ruleFilterProblem(text)
  if (problem !== undefined) context.addIssue(problem)
})

/** Topic filters as a token or a webhook's answer has them; in the form of those of a rule. */
export const ownFilters = z.array(filter).max(maxFilters, { error: `must have at most ${maxFilters} filters` })

/** The first thing that is wrong, in a sentence: where it is, and what would be right. */
export function firstProblem({ issues }: z.ZodError): string {
  const [issue] = issues
  if (issue === undefined) return 'is not right'
  return issue.path.length === 0 ? issue.message : `${issue.path.join('.')}: ${issue.message}`
}
