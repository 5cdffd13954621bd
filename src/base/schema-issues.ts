import type { z } from 'zod'

/** Units of sizes of values. */
const parts: Readonly<Record<string, string>> = {
  string: 'characters',
  array: 'entries',
  set: 'entries',
  map: 'entries',
}

/**
 * Returns the message of an issue whose schema has none, to follow the name of the option or parameter.
 */
export function describeBounds(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'too_big':
      return bound(issue.origin, issue.inclusive === false ? 'less than' : 'at most', issue.maximum)
    case 'too_small':
      return bound(issue.origin, issue.inclusive === false ? 'more than' : 'at least', issue.minimum)
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}`
    case 'invalid_type':
      return `must be of another kind (${issue.expected})`
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.join(', ')}`
    case 'unrecognized_keys':
      return 'has members that are not known here'
    default:
      return 'has not the right form'
  }
}

function bound(origin: string, comparison: string, limit: number | bigint): string {
  const unit = parts[origin]
  return unit === undefined ? `must be ${comparison} ${limit}` : `must have ${comparison} ${limit} ${unit}`
}
