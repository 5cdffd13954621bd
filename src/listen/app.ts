import {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyRequest,
  fastify,
  LogController,
} from 'fastify'
import type { ClientResolver } from '../access/client-address.js'
import type { Logger } from '../log.js'
import { answer, securityHeaders } from './answers.js'
import { pathOf } from './upgrade.js'

export interface AppOptions {
  readonly resolveClient: ClientResolver
  readonly log: Logger
}

/** Bytes of a request's body. Nothing that is served here takes a large one. */
const bodyLimit = 64 * 1024

/**
 * Makes the app that the web servers share: an access line for each request, the headers that every answer has, and
 * answers that a person can read for what is wrong. Routes are added by `registerPages`, `registerHealth` and the like; `registerEndpointHints` deals
 * with what none of them answers.
 */
export function createApp({ resolveClient, log }: AppOptions): FastifyInstance {
  const loggerInstance: FastifyBaseLogger = log.child({}, { serializers: { req: pathAndMethod } })
  const app = fastify({
    loggerInstance,
    // Its own lines have the query in them, which may hold what is nobody's business.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit,
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    frameworkErrors: (error, request, reply) => {
      answer(request, reply, error.statusCode ?? 400)
    },
  })

  const peers = new WeakMap<FastifyRequest, string>()
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(securityHeaders)
    // Kept from here, because an HTTP/2 connection may be gone, and its address with it, when the answer is.
    peers.set(request, resolveClient(request.raw).address)
  })
  app.addHook('onResponse', async (request, reply) => {
    const { method, path } = pathAndMethod(request)
    const ms = Math.round(reply.elapsedTime * 10) / 10
    log.debug({ peer: peers.get(request), method, path, status: reply.statusCode, ms }, 'request')
  })

  app.setErrorHandler((error: FastifyError, request, reply) => {
    const status = error.statusCode ?? 500
    if (status >= 500) log.error({ err: error, ...pathAndMethod(request) }, 'A request failed')
    // A path that may not be read is answered as if there was nothing, so that nobody can feel around for files.
    answer(request, reply, status === 403 ? 404 : status, headersOf(error))
  })
  return app
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
