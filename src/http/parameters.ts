import type { FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { displayPath } from '../config/options.js'

/** A part of a request that is not right: a parameter of the query, a header, or a member of the body. */
export class ParameterError extends Error {
  override readonly name = 'ParameterError'
  readonly statusCode = 400
  /** Which one: `topic`, `Last-Event-ID`, `messages[3].topic`; empty for the whole body. */
  readonly parameter: string

  /** @param message a sentence that says what would be right, without what was sent */
  constructor(parameter: string, message: string) {
    super(message)
    this.parameter = parameter
  }
}

/**
 * Reads the query of a request. What the schema does not name is ignored: proxies and scripts add their own.
 *
 * @throws {ParameterError} for the first parameter that is wrong
 */
export function readQuery<Schema extends z.ZodType>(request: FastifyRequest, schema: Schema): z.output<Schema> {
  const data = readValue(schema, request.query)
  if (typeof data === 'object' && data !== null) requireUtf8(request.url, data)
  return data
}

/**
 * Bytes that are no UTF-8 would be taken for the percent signs that they are written with.
 *
 * @param known whose names are looked at
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

/** A percent sign that encodes nothing is one. */
function isUtf8(encoded: string): boolean {
  try {
    decodeURIComponent(encoded.replaceAll(/%(?![0-9a-f]{2})/gi, ''))
    return true
  } catch {
    return false
  }
}

/**
 * Reads a body as JSON.
 *
 * @throws {ParameterError} where it is none, or for the first member that is wrong
 */
export function readJson<Schema extends z.ZodType>(body: Buffer, schema: Schema): z.output<Schema> {
  return readValue(schema, parseJson(body))
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw new ParameterError('', 'The body must be JSON, in UTF-8')
  }
}

/**
 * Reads a value that came as JSON.
 *
 * @param whole what it is called where no member of it is wrong, but all of it
 * @throws {ParameterError} for the first member that is wrong
 */
export function readValue<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  whole = 'The body',
): z.output<Schema> {
  const result = schema.safeParse(value, { error: describe })
  if (result.success) return result.data
  const [issue] = result.error.issues
  const parameter = displayPath(issue?.path ?? [])
  const message = issue?.message ?? 'is not right'
  throw new ParameterError(parameter, parameter === '' ? `${whole} ${message}` : `${parameter} ${message}`)
}

/** What the types of JSON are called. */
const kinds: Readonly<Record<string, string>> = {
  object: 'a JSON object',
  array: 'a list',
  string: 'a string',
  number: 'a number',
  boolean: 'true or false',
}

/** What is not said by the schema itself; each message follows the parameter's name. */
function describe(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === 'invalid_type') {
    return issue.input === undefined ? 'is missing' : `must be ${kinds[issue.expected] ?? issue.expected}`
  }
  if (issue.code === 'unrecognized_keys') return `has no member ${issue.keys.join(', ')}`
  return undefined
}
