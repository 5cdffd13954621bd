import type { z } from 'zod'
import { describeBounds } from '../base/schema-issues.js'
import { suggestion } from '../base/suggestion.js'
import { displayPath, nearestOption, optionPath, secretOptions } from './options.js'
import { redacted, withoutQueryValues } from './values.js'

/** Everything that is wrong with a configuration, at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  /** One line each: where it was said, which option, which value, what would be right. */
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/** One thing that is wrong, before it is known where it was said. */
export interface Problem {
  readonly path: readonly PropertyKey[]
  /** Follows the value: `must be …`, `needs …`. */
  readonly message: string
  /** The value is not repeated: nobody knows what it is, and it may be a secret under a wrong name. */
  readonly hidesValue?: boolean
  /** Other options that the verdict depends on. */
  readonly reads?: readonly string[]
}

/** One line for a person. `source` is what said it: `mqway.yaml:3`, `--http-port`, `MQWAY_HTTP_PORT`; or nothing. */
export function formatProblem(problem: Problem, value: unknown, source: string | undefined): string {
  const where = source === undefined ? '' : `${source}: `
  if (problem.path.length === 0) return `${where}${problem.message}`
  const shown = problem.hidesValue ? '' : show(value, problem.path)
  return `${where}${displayPath(problem.path)}: ${shown}${problem.message}`
}

/** The longest value that an error repeats, in characters. */
const longestShown = 80

function show(value: unknown, path: readonly PropertyKey[]): string {
  if (value === undefined) return ''
  if (mayHoldSecret(optionPath(path), value)) return `${redacted} `
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'this list ' : 'this mapping '
  // A password inside a URL is refused by the schema; the refusal must not repeat it, nor what is in a query.
  const shown = typeof value === 'string' && mayHaveQuery(value, path) ? withoutQueryValues(value) : value
  const text = JSON.stringify(shown).replace(/\/\/.*@/, `//${redacted}@`)
  return text.length > longestShown ? `${text.slice(0, longestShown)}… ` : `${text} `
}

/** Whether it is a URL on the web, or was meant to be one. */
function mayHaveQuery(value: string, path: readonly PropertyKey[]): boolean {
  return /^https?:/i.test(value) || path[0] === 'access'
}

/** Whether it is a secret, or a text in the place of a mapping that has one: `access: { jwt: … }`. A broker may be a text. */
function mayHoldSecret(option: string, value: unknown): boolean {
  const secrets = [...secretOptions()]
  if (secrets.includes(option)) return true
  return typeof value === 'string' && /^access\b/.test(option) && secrets.some(path => path.startsWith(`${option}.`))
}

type Issue = z.core.$ZodIssue

/** The problems that the schema found in `input`. */
export function schemaProblems(issues: readonly Issue[], input: unknown): Problem[] {
  return issues.flatMap(issue => problemsOf(issue, [], input))
}

function problemsOf(issue: Issue, base: readonly PropertyKey[], input: unknown): Problem[] {
  const path = [...base, ...issue.path]
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => ({
      path: [...path, key],
      message: `is not an option${suggestion(nearestOption(path, key))}`,
      hidesValue: true,
    }))
  }
  if (issue.code === 'invalid_union') {
    const value = valueAt(input, path)
    // A mapping is judged as the mapping that it wants to be, so that the error names the key inside it.
    const branch = issue.errors.find(errors => errors.every(error => !isWrongKind(error)))
    if (typeof value === 'object' && branch) return branch.flatMap(inner => problemsOf(inner, path, input))
  }
  return [{ path, message: issue.message }]
}

/** Whether a branch of a union is not even of the kind (text, list, mapping) that the value is. */
function isWrongKind(error: Issue): boolean {
  return error.path.length === 0 && (error.code === 'invalid_type' || error.code === 'invalid_value')
}

/** The value at `path` inside a tree of mappings and lists; `undefined` where there is none. */
export function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
    return Reflect.get(value, key)
  }, input)
}

const kinds: Record<string, string> = {
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping',
  number: 'a number',
}

/** What would be right, for the rules of the schema that do not say it themselves. */
export function describeIssue(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `${issue.input === undefined ? 'is missing and ' : ''}must be ${kinds[issue.expected] ?? issue.expected}`
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.join(', ')}`
    case 'too_small':
      return issue.minimum === 1 && issue.origin !== 'number' ? 'must not be empty' : describeBounds(issue)
    default:
      return describeBounds(issue)
  }
}
