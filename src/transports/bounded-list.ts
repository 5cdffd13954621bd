import { z } from 'zod'

/**
 * A list whose length is looked at before its elements are.
 *
 * @param max elements
 * @param error follows the member's name
 */
export function boundedList<T extends z.ZodType>(list: T, max: number, error: string) {
  return z.preprocess((value, context) => {
    if (!Array.isArray(value) || value.length <= max) return value
    context.addIssue(error)
    return z.NEVER
  }, list)
}
