import { STATUS_CODES } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { GatewayError } from '../base/errors.js'
import { pathOf } from './request-target.js'
import { sendStatus } from './responses.js'

/** Where programs ask, and so get answers for programs. */
const apiPrefix = '/v1/'

/** Whether a request is for the HTTP API. */
export function isApiRequest(request: FastifyRequest): boolean {
  return pathOf(request.url).startsWith(apiPrefix)
}

/**
 * Answers with what an ending says: as `application/problem+json` (RFC 9457) where programs ask, else with a sentence.
 *
 * @param headers beside those that follow from the ending
 * @param text default: the ending's for any client
 */
export function sendError(
  request: FastifyRequest,
  reply: FastifyReply,
  ending: GatewayError,
  headers: Readonly<Record<string, string>> = {},
  text = ending.text,
): FastifyReply {
  const { httpStatus: status, reason, retryAfter } = ending
  const all = { ...(retryAfter !== undefined && { 'retry-after': String(retryAfter) }), ...headers }
  if (!isApiRequest(request)) return sendStatus(request, reply, status, all, `${text}.`)
  return sendProblem(reply, { status, detail: text, reason }, all)
}

/** What is wrong, in the members of RFC 9457 and two more. */
export interface Problem {
  readonly status: number
  /** A sentence. */
  readonly detail?: string
  /** What the log and the metrics call it. */
  readonly reason?: string
  /** The part of the request that is not right, as in `ParameterError`; not told where it is empty. */
  readonly parameter?: string
}

/** What `application/problem+json` says of a problem. */
export function problemBody({ status, parameter = '', ...more }: Problem): object {
  const title = STATUS_CODES[status] ?? 'Error'
  return { type: 'about:blank', title, status, ...more, ...(parameter !== '' && { parameter }) }
}

/** Answers with a problem; one may have nothing to say but its status. */
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
      // To a text, a charset would be added, which this type does not have.
      .send(Buffer.from(JSON.stringify(problemBody(problem))))
  )
}
