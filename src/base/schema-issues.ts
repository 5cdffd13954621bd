import type { z } from 'zod'

/** Entries of each kind of value, in the plural. */
const parts: Readonly<Record<string, string>> = {
  string: 'characters',
  array: 'entries',
  set: 'entries',
  map: 'entries',
}

/**
 * The message of an issue whose schema has none of its own; it follows the name of the option or parameter, in place of the library's.
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
