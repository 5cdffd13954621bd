import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Client, ClientResolver } from '../access/client-address.js'
import type { OriginPolicy } from '../access/origins.js'
import { originRefusal } from './origin-refusal.js'
import { addVary } from './responses.js'

/** Which pages may ask, and how it is found out who asks. */
export interface OriginAdmission {
  readonly allowsOrigin: OriginPolicy
  readonly resolveClient: ClientResolver
  /** The pages whose browser may add cookies and certificates, and show them the answers; left out for none. */
  readonly allowsCredentials?: OriginPolicy | undefined
}

/** Headers of answers that scripts of other origins may read (Fetch §4.10). */
const exposedHeaders = 'retry-after, location, idempotency-replayed'

/**
 * Tells the browser whether its page may read the answer (Fetch §3.2), also where that is a refusal.
 *
 * A page of another origin has to send `Authorization` itself, as its browser is not told to add what it has; where cookies or certificates count, it
 * is (`Access-Control-Allow-Credentials`, Fetch §3.2.5).
 *
 * @returns whether requests of this origin are let in
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
 * Lets a request in by its `Origin`, as `setOriginHeaders`.
 *
 * @throws {GatewayError} `origin-refused`
 */
export function admitOrigin(request: FastifyRequest, reply: FastifyReply, options: OriginAdmission): Client {
  const client = options.resolveClient(request.raw)
  if (setOriginHeaders(request, reply, client, options)) return client
  throw originRefusal(request.headers.origin, client.host, 'push.origins')
}

/** What a page of another origin may send. */
export interface Preflight {
  /** As in `Access-Control-Allow-Methods`: `POST`, or `GET, POST`. */
  readonly methods: string
  /** As in `Access-Control-Allow-Headers`. */
  readonly headers: string
}

/**
 * Answers a browser that asks what a page of another origin may send; it need not ask again for ten minutes.
 *
 * @throws {GatewayError} `origin-refused`
 */
export function sendPreflight(
  request: FastifyRequest,
  reply: FastifyReply,
  options: OriginAdmission,
  { methods, headers }: Preflight,
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
