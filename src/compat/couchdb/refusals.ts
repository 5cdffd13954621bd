import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import { ParameterError } from '../../http/parameters.js'
import type { TransportContext } from '../../transports/transport-context.js'

/*
 * What cannot be done, as CouchDB says it: {"error":…,"reason":…}.
 */

/** The words that CouchDB has; what it does not know is called by its own reason. */
const words: Readonly<Record<number, string>> = {
  400: 'bad_request',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'too_large',
  500: 'internal_server_error',
}

const parameterWords: Readonly<Record<string, string>> = {
  database: 'illegal_database_name',
  callback: 'bad_request',
}

const type = 'application/json; charset=utf-8'

/** What an ending says. */
export function endingRefusal({ httpStatus, reason, text }: GatewayError): {
  readonly type: string
  readonly body: string
} {
  return { type, body: refusal(words[httpStatus] ?? reason.replaceAll('-', '_'), `${text}.`) }
}

/** Answers what the routes of `scope` throw. */
export function refuseInCouchdb(scope: FastifyInstance, { gate, log, metrics }: TransportContext): void {
  scope.setErrorHandler((error: FastifyError | GatewayError | ParameterError, request, reply) => {
    if (error instanceof ParameterError) {
      const { parameter, message, statusCode } = error
      return refuse(reply, statusCode, parameterWords[parameter] ?? 'query_parse_error', `${message}.`)
    }
    // A body that is too large, or a fault of ours, is for the whole app to deal with.
    if (!(error instanceof GatewayError) || error.reason === 'body-too-large') throw error
    const { reason, level, httpStatus: status, retryAfter, text, cause } = error
    metrics.refused(reason)
    log[level]({ peer: gate.clientOf(request).address, reason, status, err: cause }, text)
    if (retryAfter !== undefined) reply.header('retry-after', String(retryAfter))
    return reply.code(status).header('cache-control', 'no-store').type(type).send(endingRefusal(error).body)
  })
}

/** Answers with an error that CouchDB knows. */
export function refuse(reply: FastifyReply, status: number, error: string, reason: string): FastifyReply {
  return reply.code(status).header('cache-control', 'no-store').type(type).send(refusal(error, reason))
}

function refusal(error: string, reason: string): string {
  return `${JSON.stringify({ error, reason })}\n`
}
