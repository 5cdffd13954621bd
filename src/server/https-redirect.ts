import type { FastifyInstance } from 'fastify'
import type { Client, ClientResolver } from '../access/client-address.js'
import { parseHost } from '../access/origins.js'
import { GatewayError } from '../base/errors.js'
import { pathOf } from '../http/request-target.js'

/** The https URL of a plain request; `undefined` for an encrypted one. */
export type HttpsLocation = (client: Client, target: string) => string | undefined

/**
 * Compiles the redirect of plain requests to https, at the same host.
 *
 * @param port of https, once it listens
 * @throws {GatewayError} `bad-request`, from that function, without a host
 */
export function compileHttpsLocation(port: () => number | undefined): HttpsLocation {
  return (client, target) => {
    if (client.secure) return undefined
    const host = client.host === undefined ? undefined : parseHost(client.host)
    if (host === undefined) throw new GatewayError('bad-request')
    const own = port()
    const suffix = own === undefined || own === 443 ? '' : `:${own}`
    return `https://${host.host}${suffix}${target.startsWith('/') ? target : '/'}`
  }
}

/** Paths of monitoring, which usually follows no redirects. */
const exempt = new Set(['/healthz', '/readyz', '/metrics'])

/** Redirects plain requests except those of monitoring: 301, or 308 for methods with a body (RFC 9110 §15.4.9). */
export function registerHttpsRedirect(
  app: FastifyInstance,
  location: HttpsLocation,
  resolveClient: ClientResolver,
): void {
  app.addHook('onRequest', (request, reply, done) => {
    const url = exempt.has(pathOf(request.url)) ? undefined : location(resolveClient(request.raw), request.url)
    if (url === undefined) return done()
    reply.code(request.method === 'GET' || request.method === 'HEAD' ? 301 : 308)
    reply.headers({ location: url, 'cache-control': 'no-store' }).send()
  })
}
