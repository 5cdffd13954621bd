import type { FastifyInstance } from 'fastify'
import type { Client, ClientResolver } from '../access/client-address.js'
import { parseHost } from '../access/origins.js'
import { GatewayError } from '../base/errors.js'
import { pathOf } from '../http/request-target.js'

/** The URL over https of a request that came without; `undefined` where it needs none, as it is encrypted. */
export type HttpsLocation = (client: Client, target: string) => string | undefined

/**
 * Makes the function that sends plain requests on to https, at the host that they asked for.
 *
 * @param port the port of https, once it is listened on
 * @throws {GatewayError} `bad-request`, from that function, for a request that names no host
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

/** Paths that monitoring asks for, which follows no redirects as a rule. */
const exempt = new Set(['/healthz', '/readyz', '/metrics'])

/** Answers every plain request but those of monitoring with a redirect: 301, and 308 where there may be a body (RFC 9110 §15.4.9). */
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
