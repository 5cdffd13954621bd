import { STATUS_CODES } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { GatewayError } from '../base/errors.js'
import { pathOf } from './request-target.js'
import { sendStatus } from './responses.js'

const apiPrefix = '/v1/'

/** Whether a request is for the HTTP API. */
export function isApiRequest(request: FastifyRequest): boolean {
  return pathOf(request.url).startsWith(apiPrefix)
}

/**
 * Sends an error: as `application/problem+json` (RFC 9457) in the API, as a page or text elsewhere.
 *
 * @param headers besides those of the error
 * @param text default: the error's text for any client
 */
export function sendError(
  request: FastifyRequest,
  reply: FastifyReply,
  error: GatewayError,
  headers: Readonly<Record<string, string>> = {},
  text = error.text,
): FastifyReply {
  const { httpStatus: status, reason, retryAfter } = error
  const all = { ...(retryAfter !== undefined && { 'retry-after': String(retryAfter) }), ...headers }
  if (!isApiRequest(request)) return sendStatus(request, reply, status, all, `${text}.`)
  return sendProblem(reply, { status, detail: text, reason }, all)
}

/** The members of RFC 9457 and two more. */
export interface Problem {
  readonly status: number
  /** A sentence. */
  readonly detail?: string
  /** The reason in the log and the metrics. */
  readonly reason?: string
  /** The invalid part of the request, as in `ParameterError`; left out if empty. */
  readonly parameter?: string
}

export function problemBody({ status, parameter = '', ...more }: Problem): object {
  const title = STATUS_CODES[status] ?? 'Error'
  return { type: 'about:blank', title, status, ...more, ...(parameter !== '' && { parameter }) }
}

export function sendProblem(
  reply: FastifyReply,
  problem: Problem,
  headers: Readonly<Record<string, string>> = {},
): FastifyReply {
  return (
    reply
      .code(problem.status)
      .headers({ 'cache-control': 'no-store', ...headers })
      .type('application/problem+json')
      // Fastify would add a charset to a string, which this type does not have.
      .send(Buffer.from(JSON.stringify(problemBody(problem))))
  )
}
