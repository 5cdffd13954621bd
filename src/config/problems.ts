import type { z } from 'zod'
import { describeBounds } from '../base/schema-issues.js'
import { suggestion } from '../base/suggestion.js'
import { displayPath, nearestOption, optionPath, secretOptions } from './options.js'
import { redacted, withoutQueryValues } from './values.js'

/** The configuration is invalid. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  /** One line each: source, option, value, and what would be valid. */
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/** A problem of the configuration. */
export interface Problem {
  readonly path: readonly PropertyKey[]
  /** Follows the value: `must be …`, `needs …`. */
  readonly message: string
  /** Whether the value is not shown, as it may be a secret under an unknown name. */
  readonly hidesValue?: boolean
  /** Other sections that the check reads. */
  readonly reads?: readonly string[]
}

/** Formats a problem as one line. @param source `mqway.yaml:3`, `--http-port` or `MQWAY_HTTP_PORT`; `undefined` if unknown */
export function formatProblem(problem: Problem, value: unknown, source: string | undefined): string {
  const where = source === undefined ? '' : `${source}: `
  if (problem.path.length === 0) return `${where}${problem.message}`
  const shown = problem.hidesValue ? '' : show(value, problem.path)
  return `${where}${displayPath(problem.path)}: ${shown}${problem.message}`
}

/** Characters of a value in an error. */
const maxShown = 80

function show(value: unknown, path: readonly PropertyKey[]): string {
  if (value === undefined) return ''
  if (mayHoldSecret(optionPath(path), value)) return `${redacted} `
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'this list ' : 'this mapping '
  // The error must not repeat a password in a URL, nor its query.
  const shown = typeof value === 'string' && mayHaveQuery(value, path) ? withoutQueryValues(value) : value
  const text = JSON.stringify(shown).replace(/\/\/.*@/, `//${redacted}@`)
  return text.length > maxShown ? `${text.slice(0, maxShown)}… ` : `${text} `
}

/** Whether a value is a URL, or may be meant as one. */
function mayHaveQuery(value: string, path: readonly PropertyKey[]): boolean {
  return /^https?:/i.test(value) || path[0] === 'access'
}

/** Whether an option is a secret, or a text instead of a mapping with one: `access: { jwt: … }`. A broker may be a text. */
function mayHoldSecret(option: string, value: unknown): boolean {
  const secrets = [...secretOptions()]
  if (secrets.includes(option)) return true
  return typeof value === 'string' && /^access\b/.test(option) && secrets.some(path => path.startsWith(`${option}.`))
}

type Issue = z.core.$ZodIssue

/** Converts the issues of the schema with `input` to problems. */
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
    // For a mapping, the errors of the union's mapping are shown, which name the key in it.
    const branch = issue.errors.find(errors => errors.every(error => !isWrongKind(error)))
    if (typeof value === 'object' && branch) return branch.flatMap(inner => problemsOf(inner, path, input))
  }
  return [{ path, message: issue.message }]
}

/** Whether the value has another type than a branch of a union (text, list, mapping). */
function isWrongKind(error: Issue): boolean {
  return error.path.length === 0 && (error.code === 'invalid_type' || error.code === 'invalid_value')
}

/** Returns the value at `path` in a tree of mappings and lists; `undefined` if there is none. */
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

/** Returns the message of an issue whose schema has none. */
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
