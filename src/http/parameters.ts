import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { exceededJsonBound, maxJsonLevels } from '../base/json-bounds.js'
import { describeBounds } from '../base/schema-issues.js'
import { truncate } from '../base/truncate.js'
import { displayPath } from '../config/options.js'

/** UTF-16 units of a `ParameterError`'s message and parameter: both may have names from the client. */
const [maxMessageLength, maxParameterLength] = [300, 100]
/** Unknown members that are named, and UTF-16 units of each name. */
const [maxNamed, maxNameLength] = [3, 32]

/** An invalid query parameter, header or member of the body. */
export class ParameterError extends Error {
  override readonly name = 'ParameterError'
  readonly statusCode: number = 400
  /** Its name: `topic`, `Last-Event-ID`, `messages[3].topic`; empty for the whole body. */
  readonly parameter: string

  /** @param message a sentence that says what would be right, without the value */
  constructor(parameter: string, message: string) {
    super(truncate(message, maxMessageLength))
    this.parameter = truncate(parameter, maxParameterLength)
  }
}

/**
 * Parses the query of a request. Unknown parameters are ignored: proxies and scripts add their own.
 *
 * @throws {ParameterError} for the first parameter that is wrong
 */
export function readQuery<Schema extends z.ZodType>(request: FastifyRequest, schema: Schema): z.output<Schema> {
  const data = readValue(schema, request.query)
  if (typeof data === 'object' && data !== null) requireUtf8(request.url, data)
  return data
}

/**
 * Requires UTF-8: other bytes would be taken for the percent signs that encode them.
 *
 * @param known the names to check
 * @throws {ParameterError}
 */
function requireUtf8(url: string, known: object): void {
  if (!url.includes('%') || isUtf8(url)) return
  for (const pair of url.slice(url.indexOf('?') + 1).split('&')) {
    const [name = ''] = pair.split('=', 1)
    if (Object.hasOwn(known, name) && !isUtf8(pair)) {
      throw new ParameterError(name, `${name} must be UTF-8, percent-encoded`)
    }
  }
}

/** A percent sign that encodes nothing stands for itself. */
function isUtf8(encoded: string): boolean {
  try {
    decodeURIComponent(encoded.replaceAll(/%(?![0-9a-f]{2})/gi, ''))
    return true
  } catch {
    return false
  }
}

/**
 * Parses a body as JSON.
 *
 * @param maxValues as for `exceededJsonBound` (`limits.jsonValues`)
 * @throws {ParameterError} if it is not JSON, or exceeds a bound
 */
export function parseJsonBody(body: Buffer, maxValues: number): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(body)
  } catch {
    throw new ParameterError('', 'The body must be JSON, in UTF-8')
  }
  return parseJsonText(text, maxValues, 'The body must be JSON, in UTF-8')
}

/**
 * Parses JSON from a client.
 *
 * @param maxValues as for `exceededJsonBound` (`limits.jsonValues`)
 * @param otherwise the error text if it is not JSON
 * @throws {ParameterError} if it is not JSON, or exceeds a bound
 */
export function parseJsonText(text: string, maxValues: number, otherwise: string): unknown {
  const exceeded = exceededJsonBound(text, maxValues)
  if (exceeded === 'levels')
    throw new ParameterError('', `The JSON must not be nested deeper than ${maxJsonLevels} levels`)
  if (exceeded) throw new ParameterError('', `The JSON must have at most ${maxValues} values (limits.jsonValues)`)
  try {
    return JSON.parse(text)
  } catch {
    throw new ParameterError('', otherwise)
  }
}

/**
 * Validates a value from JSON.
 *
 * @param whole its name in errors that concern all of it
 * @param path of the value in the body
 * @throws {ParameterError} for the first member that is wrong
 */
export function readValue<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  whole = 'The body',
  path: readonly PropertyKey[] = [],
): z.output<Schema> {
  const result = schema.safeParse(value, { error: describe })
  if (result.success) return result.data
  const [issue] = result.error.issues
  const parameter = displayPath([...path, ...(issue?.path ?? [])])
  const message = issue?.message ?? 'is not right'
  throw new ParameterError(parameter, parameter === '' ? `${whole} ${message}` : `${parameter} ${message}`)
}

/** Values of a body, and whether the body is a list. */
export interface BodyItems<T> {
  readonly items: readonly T[]
  readonly isList: boolean
}

/**
 * Parses a body that is one value, or a list of them in the member `list`; yields between two values of a list.
 *
 * @param items the schema of the list, with elements of any kind
 * @param maxValues as for `exceededJsonBound` (`limits.jsonValues`)
 * @throws {ParameterError} for the first member that is wrong
 */
export function* readItems<Item extends z.ZodType>(
  body: Buffer,
  { item, list, items, maxValues }: { item: Item; list: string; items: z.ZodType<unknown[]>; maxValues: number },
): Generator<undefined, BodyItems<z.output<Item>>> {
  const value = parseJsonBody(body, maxValues)
  if (typeof value !== 'object' || value === null || !(list in value)) {
    return { items: [readValue(item, value)], isList: false }
  }
  const parsed: z.output<Item>[] = []
  const elements = readValue(z.strictObject({ [list]: items }), value)[list] ?? []
  for (const [index, element] of elements.entries()) {
    yield undefined
    parsed.push(readValue(item, element, undefined, [list, index]))
  }
  return { items: parsed, isList: true }
}

/** Names of JSON types. */
const kinds: Readonly<Record<string, string>> = {
  object: 'a JSON object',
  array: 'a list',
  string: 'a string',
  number: 'a number',
  boolean: 'true or false',
}

/** Error texts for issues without one in the schema; they follow the parameter's name. */
function describe(issue: z.core.$ZodRawIssue): string {
  if (issue.code === 'invalid_type') {
    return issue.input === undefined ? 'is missing' : `must be ${kinds[issue.expected] ?? issue.expected}`
  }
  if (issue.code === 'unrecognized_keys') return `has no member ${namesOf(issue.keys)}`
  return describeBounds(issue)
}

/** The first of the names. */
function namesOf(keys: readonly string[]): string {
  const named = keys.slice(0, maxNamed).map(key => truncate(key, maxNameLength))
  const more = keys.length - named.length
  return more === 0 ? named.join(', ') : `${named.join(', ')} and ${more} more`
}
