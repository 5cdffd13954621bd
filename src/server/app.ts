import {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyRequest,
  fastify,
  LogController,
} from 'fastify'
import type { ClientResolver } from '../access/client-address.js'
import type { DetailReaders } from '../access/detail-readers.js'
import { anyHost, type HostPolicy } from '../access/hosts.js'
import type { SiteRules } from '../access/site-rules.js'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { LimitsConfig } from '../config/schema.js'
import { requireServedHost } from '../http/host-header.js'
import { ParameterError } from '../http/parameters.js'
import { isApiRequest, sendError, sendProblem } from '../http/problem.js'
import { logRequest } from '../http/request-log.js'
import { pathOf } from '../http/request-target.js'
import { securityHeaders, sendStatus } from '../http/responses.js'
import { lingerTime } from './refusal.js'
import { RefusalLog } from './refusal-log.js'
import { discardBodies, dropUnreadBodies, limitBodyTime } from './request-bodies.js'

/** The address of who sent a request. */
const peer = Symbol('peer')

declare module 'fastify' {
  interface FastifyRequest {
    [peer]: string
  }
}

export interface AppOptions {
  readonly site?: SiteRules | undefined
  readonly resolveClient: ClientResolver
  /** Clients that are told addresses and options of the gateway in refusals; left out for none. */
  readonly seesDetails?: DetailReaders
  /** Default: every host. */
  readonly servesHost?: HostPolicy
  readonly limits: Pick<LimitsConfig, 'bodySize' | 'bodyTimeout' | 'urlLength'>
  readonly log: Logger
  readonly metrics: Metrics
}

/**
 * Makes the app that the web servers share: an access line for each request, the headers that every answer has, and
 * answers that a person can read for what is wrong. Routes are added by `registerPages`, `registerHealth` and the like; `registerEndpointHints` deals
 * with what none of them answers.
 */
export function createApp(options: AppOptions): FastifyInstance {
  const { site, resolveClient, seesDetails, servesHost = anyHost, limits, log, metrics } = options
  const refusals = new RefusalLog()
  const loggerInstance: FastifyBaseLogger = log.child({}, { serializers: { req: pathAndMethod } })
  const app = fastify({
    loggerInstance,
    // Its own lines have the query in them, which may hold what is nobody's business.
    logController: new LogController({ disableRequestLogging: true }),
    // A part of the path may be the name of a topic, and as long as a path may be.
    routerOptions: { maxParamLength: limits.urlLength },
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    // Nothing is logged in the name of a request here, and a logger of its own costs more than to find its route.
    childLoggerFactory: logger => logger,
    frameworkErrors: (error, request, reply) => {
      sendStatus(request, reply, error.statusCode ?? 400)
    },
  })

  // Hooks call back: each promise that there is nothing to wait for is a turn of its own, in every request.
  app.decorateRequest(peer, '')
  app.addHook('onRequest', (request, reply, done) => {
    reply.headers(securityHeaders)
    // Kept from here, because an HTTP/2 connection may be gone, and its address with it, when the answer is.
    const client = resolveClient(request.raw)
    request[peer] = client.address
    requireServedHost(request.raw, client.host, servesHost)
    if (request.url.length > limits.urlLength) throw new GatewayError('url-too-long')
    site?.checkAddress(request[peer])
    site?.checkPath(pathOf(request.url))
    done()
  })
  limitBodyTime(app, limits.bodyTimeout)
  discardBodies(app, limits.bodySize)
  dropUnreadBodies(app)
  app.addHook('onResponse', (request, reply, done) => {
    const { method, url } = request
    logRequest(log, { peer: request[peer], method, path: pathOf(url) }, reply.statusCode, reply.elapsedTime)
    done()
  })

  app.setErrorHandler((error: FastifyError | GatewayError | ParameterError, request, reply) => {
    // With a body that failed, the framework has the connection end; HTTP/2 has no header for that (RFC 9113 §8.2.2).
    if (request.raw.httpVersionMajor > 1) reply.removeHeader('connection')
    if (error instanceof GatewayError) {
      metrics.refused(error.reason)
      const { reason, httpStatus: status, detailedText } = error
      refusals.write(log, error, { peer: request[peer], ...pathAndMethod(request), status })
      if (reason === 'body-too-large') {
        // What still comes would turn the end into a reset, which can overtake the answer.
        reply.removeHeader('connection')
        lingerOver(request.raw)
      }
      const tells = detailedText !== error.text && seesDetails?.(resolveClient(request.raw)) === true
      return sendError(request, reply, error, {}, tells ? detailedText : error.text)
    }
    if (error instanceof ParameterError) {
      const { statusCode: status, message: detail, parameter } = error
      return sendProblem(reply, { status, detail, reason: 'invalid-parameter', parameter })
    }
    const status = error.statusCode ?? 500
    if (status >= 500) log.error({ err: error, ...pathAndMethod(request) }, 'A request failed')
    if (isApiRequest(request)) return sendProblem(reply, { status })
    // A path that may not be read is answered as if there was nothing, so that nobody can feel around for files.
    return sendStatus(request, reply, status === 403 ? 404 : status, headersOf(error))
  })
  return app
}

/** The rest of a body is read and thrown away, for a short while. */
function lingerOver(request: FastifyRequest['raw']): void {
  const timer = setTimeout(() => request.destroy(), lingerTime).unref()
  request.once('close', () => clearTimeout(timer))
}

/** No route here has a schema, and a start without the compilers for them costs a tenth less. */
function noSchemas(): never {
  throw new Error('There is no compiler for the schemas of routes: see schemaController')
}

function pathAndMethod({ method, url }: { readonly method?: string; readonly url?: string }) {
  return { method, path: pathOf(url) }
}

/** What an error wants to have said beside its status, such as `Content-Range` with 416. */
function headersOf(error: FastifyError): Record<string, string> {
  const wanted = 'headers' in error && typeof error.headers === 'object' ? Object.entries(error.headers ?? {}) : []
  return Object.fromEntries(wanted.map(([name, value]) => [name.toLowerCase(), String(value)]))
}
