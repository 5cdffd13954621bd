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
import { accessEntryOf } from '../http/access-log.js'
import type { HeaderRules } from '../http/header-rules.js'
import { requireServedHost } from '../http/host-header.js'
import { ParameterError } from '../http/parameters.js'
import { isApiRequest, sendError, sendProblem } from '../http/problem.js'
import { pathOf } from '../http/request-target.js'
import { logRequest, securityHeaders, sendStatus } from '../http/responses.js'
import { lingerTime } from './refusal.js'
import { RefusalLog } from './refusal-log.js'
import { discardBodies, dropUnreadBodies, limitBodyTime } from './request-bodies.js'

const peer = Symbol('peer')

declare module 'fastify' {
  interface FastifyRequest {
    [peer]: string
  }
}

export interface AppOptions {
  readonly site?: SiteRules | undefined
  readonly resolveClient: ClientResolver
  /** Clients that see addresses and options in error texts; left out for none. */
  readonly seesDetails?: DetailReaders
  /** Default: every host. */
  readonly servesHost?: HostPolicy
  /** Headers of responses, besides the program's. */
  readonly headerRules?: HeaderRules | undefined
  readonly limits: Pick<LimitsConfig, 'bodySize' | 'bodyTimeout' | 'urlLength'>
  readonly log: Logger
  readonly metrics: Metrics
}

/**
 * Creates the app of the web servers: request log, security headers, error responses. `registerPages`, `registerHealth` and others add routes;
 * `registerEndpointHints` handles requests without a route.
 */
export function createApp(options: AppOptions): FastifyInstance {
  const { site, resolveClient, seesDetails, servesHost = anyHost, headerRules, limits, log, metrics } = options
  const refusals = new RefusalLog()
  const loggerInstance: FastifyBaseLogger = log.child({}, { serializers: { req: pathAndMethod } })
  const app = fastify({
    loggerInstance,
    // Fastify's log lines have the query, which may hold secrets.
    logController: new LogController({ disableRequestLogging: true }),
    // A path parameter may be a topic, as long as a path may be.
    routerOptions: { maxParamLength: limits.urlLength },
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    // Nothing is logged by request here, and a child logger costs more than the routing.
    childLoggerFactory: logger => logger,
    frameworkErrors: (error, request, reply) => {
      sendStatus(request, reply, error.statusCode ?? 400)
    },
  })

  // Callbacks: an async hook costs a microtask in every request.
  app.decorateRequest(peer, '')
  app.addHook('onRequest', (request, reply, done) => {
    reply.headers(securityHeaders)
    // The address of an HTTP/2 connection may be gone when the response is sent.
    const client = resolveClient(request.raw)
    request[peer] = client.address
    // Before a pattern of the configuration has to match it.
    if (request.url.length > limits.urlLength) throw new GatewayError('url-too-long')
    const headers = headerRules?.forAll({ ...client, path: pathOf(request.url) })
    if (headers) reply.headers(headers)
    requireServedHost(request.raw, client.host, servesHost)
    site?.checkAddress(request[peer])
    site?.checkPath(pathOf(request.url))
    done()
  })
  limitBodyTime(app, limits.bodyTimeout)
  discardBodies(app, limits.bodySize)
  dropUnreadBodies(app)
  app.addHook('onResponse', (request, reply, done) => {
    const { method, url } = request
    logRequest(
      log,
      { peer: request[peer], ...requestIdOf(request), method, path: pathOf(url) },
      reply.statusCode,
      reply.elapsedTime,
    )
    done()
  })

  app.setErrorHandler((error: FastifyError | GatewayError | ParameterError, request, reply) => {
    // After a failed body, Fastify sends `Connection: close`, which HTTP/2 does not have (RFC 9113 §8.2.2).
    if (request.raw.httpVersionMajor > 1) reply.removeHeader('connection')
    if (error instanceof GatewayError) {
      metrics.refused(error.reason)
      const { reason, httpStatus: status, detailedText } = error
      refusals.write(log, error, { peer: request[peer], ...requestIdOf(request), ...pathAndMethod(request), status })
      if (reason === 'body-too-large') {
        // Unread bytes would cause a reset, which can overtake the response.
        reply.removeHeader('connection')
        lingerOver(request.raw)
      }
      const isDetailed = detailedText !== error.text && seesDetails?.(resolveClient(request.raw)) === true
      return sendError(request, reply, error, {}, isDetailed ? detailedText : error.text)
    }
    if (error instanceof ParameterError) {
      const { statusCode: status, message: detail, parameter } = error
      return sendProblem(reply, { status, detail, reason: 'invalid-parameter', parameter })
    }
    const status = error.statusCode ?? 500
    if (status >= 500) log.error({ err: error, ...requestIdOf(request), ...pathAndMethod(request) }, 'A request failed')
    if (isApiRequest(request)) return sendProblem(reply, { status })
    // A forbidden path is answered like a missing one, so that nobody can probe for files.
    return sendStatus(request, reply, status === 403 ? 404 : status, headersOf(error))
  })
  return app
}

/** Discards the rest of a body for a short time. */
function lingerOver(request: FastifyRequest['raw']): void {
  const timer = setTimeout(() => request.destroy(), lingerTime).unref()
  request.once('close', () => clearTimeout(timer))
}

/** No route has a schema; without the compilers, the start takes a tenth less. */
function noSchemas(): never {
  throw new Error('There is no compiler for the schemas of routes: see schemaController')
}

function pathAndMethod({ method, url }: { readonly method?: string; readonly url?: string }) {
  return { method, path: pathOf(url) }
}

/** With an access log, the id in it. */
function requestIdOf({ raw }: FastifyRequest): { readonly requestId?: string } {
  const id = accessEntryOf(raw)?.id
  return id === undefined ? {} : { requestId: id }
}

/** The headers of an error, such as `Content-Range` with 416. */
function headersOf(error: FastifyError): Record<string, string> {
  const wanted = 'headers' in error && typeof error.headers === 'object' ? Object.entries(error.headers ?? {}) : []
  return Object.fromEntries(wanted.map(([name, value]) => [name.toLowerCase(), String(value)]))
}
