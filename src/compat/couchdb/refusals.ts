import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import { ParameterError } from '../../http/parameters.js'
import type { TransportContext } from '../../transports/transport-context.js'

/*
 * Errors in CouchDB's format: {"error":…,"reason":…}.
 */

/** CouchDB's names of errors; others have the name of their reason. */
const errorNames: Readonly<Record<number, string>> = {
  400: 'bad_request',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'too_large',
  500: 'internal_server_error',
}

const parameterErrorNames: Readonly<Record<string, string>> = {
  database: 'illegal_database_name',
  callback: 'bad_request',
}

const type = 'application/json; charset=utf-8'

export function errorBody({ httpStatus, reason, text }: GatewayError): {
  readonly type: string
  readonly body: string
} {
  return { type, body: refusal(errorNames[httpStatus] ?? reason.replaceAll('-', '_'), `${text}.`) }
}

/** Sends the errors of the routes of `scope` in CouchDB's format. */
export function setCouchdbErrorHandler(scope: FastifyInstance, { gate, log, metrics }: TransportContext): void {
  scope.setErrorHandler((error: FastifyError | GatewayError | ParameterError, request, reply) => {
    if (error instanceof ParameterError) {
      const { parameter, message, statusCode } = error
      return refuse(reply, statusCode, parameterErrorNames[parameter] ?? 'query_parse_error', `${message}.`)
    }
    // The app's own handler answers bodies that are too large, and internal errors.
    if (!(error instanceof GatewayError) || error.reason === 'body-too-large') throw error
    const { reason, level, httpStatus: status, retryAfter, text, cause } = error
    metrics.refused(reason)
    log[level]({ peer: gate.clientOf(request).address, reason, status, err: cause }, text)
    if (retryAfter !== undefined) reply.header('retry-after', String(retryAfter))
    return reply.code(status).header('cache-control', 'no-store').type(type).send(errorBody(error).body)
  })
}

/** Sends an error of CouchDB. */
export function refuse(reply: FastifyReply, status: number, error: string, reason: string): FastifyReply {
  return reply.code(status).header('cache-control', 'no-store').type(type).send(refusal(error, reason))
}

function refusal(error: string, reason: string): string {
  return `${JSON.stringify({ error, reason })}\n`
}
