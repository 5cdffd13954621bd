import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Client, ClientResolver } from '../access/client-address.js'
import type { OriginPolicy } from '../access/origins.js'
import { Ending } from '../endings.js'

/** Which pages may ask, and how it is found out who asks. */
export interface OriginAdmission {
  readonly allowsOrigin: OriginPolicy
  readonly resolveClient: ClientResolver
}

/** Headers of answers that scripts of other origins may read (Fetch §4.10). */
const exposedHeaders = 'retry-after, location, idempotency-replayed'

/**
 * Lets a request in by its `Origin`, and tells the browser that its page may read the answer (Fetch §3.2).
 *
 * A page of another origin has to send `Authorization` itself, as its browser is not told to add what it has.
 *
 * @throws {Ending} `origin-refused`
 */
export function admitOrigin(request: FastifyRequest, reply: FastifyReply, options: OriginAdmission): Client {
  const client = options.resolveClient(request.raw)
  const { origin } = request.headers
  reply.header('vary', 'origin')
  if (!options.allowsOrigin(origin, client.host, client.secure)) {
    throw new Ending('origin-refused', { cause: `Origin: ${origin ?? 'none'}; Host: ${client.host ?? 'none'}` })
  }
  if (origin === undefined) return client
  reply.headers({ 'access-control-allow-origin': origin, 'access-control-expose-headers': exposedHeaders })
  return client
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
 * @throws {Ending} `origin-refused`
 */
export function answerPreflight(
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
