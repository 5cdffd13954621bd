import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Client, ClientResolver } from '../access/client-address.js'
import type { OriginPolicy } from '../access/origins.js'
import { originRefusal } from './origin-refusal.js'
import { addVary } from './responses.js'

/** The origin policy, and the client of a request. */
export interface OriginAdmission {
  readonly allowsOrigin: OriginPolicy
  readonly resolveClient: ClientResolver
  /** Origins whose requests may carry cookies and certificates; left out for none. */
  readonly allowsCredentials?: OriginPolicy | undefined
}

/** Response headers that scripts of other origins may read (Fetch §4.10). */
const exposedHeaders = 'retry-after, location, idempotency-replayed'

/**
 * Sets the CORS headers of a response (Fetch §3.2), also of a refusal.
 *
 * A page of another origin has to send `Authorization` itself; with `allowsCredentials` its browser sends cookies and certificates as well
 * (`Access-Control-Allow-Credentials`, Fetch §3.2.5).
 *
 * @returns whether requests of this origin are admitted
 */
export function setOriginHeaders(
  request: FastifyRequest,
  reply: FastifyReply,
  client: Client,
  { allowsOrigin, allowsCredentials }: Omit<OriginAdmission, 'resolveClient'>,
): boolean {
  const { origin } = request.headers
  addVary(reply, 'origin')
  if (!allowsOrigin(origin, client.host, client.secure)) return false
  if (origin === undefined) return true
  reply.headers({ 'access-control-allow-origin': origin, 'access-control-expose-headers': exposedHeaders })
  if (allowsCredentials?.(origin, client.host, client.secure)) reply.header('access-control-allow-credentials', 'true')
  return true
}

/**
 * Admits a request by its `Origin`, and sets the headers as `setOriginHeaders`.
 *
 * @throws {GatewayError} `origin-refused`
 */
export function admitOrigin(request: FastifyRequest, reply: FastifyReply, options: OriginAdmission): Client {
  const client = options.resolveClient(request.raw)
  if (setOriginHeaders(request, reply, client, options)) return client
  throw originRefusal(request.headers.origin, client.host, 'push.origins')
}

/**
 * Answers a preflight; the browser may cache it for ten minutes.
 *
 * @throws {GatewayError} `origin-refused`
 */
export function sendPreflight(
  request: FastifyRequest,
  reply: FastifyReply,
  options: OriginAdmission,
  { methods, headers }: { readonly methods: string; readonly headers: string },
): FastifyReply {
  admitOrigin(request, reply, options)
  return reply
    .code(204)
    .headers({
      'access-control-allow-methods': methods,
      'access-control-allow-headers': headers,
      'access-control-max-age': '600',
    })
    .send()
}
