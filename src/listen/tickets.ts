import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Authenticator } from '../access/authenticator.js'
import type { Client, ClientResolver } from '../access/client-address.js'
import type { OriginPolicy } from '../access/origins.js'
import type { Tickets } from '../access/tickets.js'
import { Ending } from '../endings.js'
import { answerProblem } from './problem.js'
import { attemptOf, type CredentialPlaces } from './request-identity.js'

export interface TicketRouteOptions {
  readonly authenticator: Authenticator
  readonly tickets: Tickets
  readonly places: CredentialPlaces
  /** Whether a page may ask: one that may connect somewhere. */
  readonly allowsOrigin: OriginPolicy
  readonly resolveClient: ClientResolver
}

const url = '/v1/tickets'

/** What a page of another origin may send, for how many seconds a browser need not ask again. */
const preflightAnswer = {
  'access-control-allow-methods': 'POST',
  'access-control-allow-headers': 'authorization, content-type',
  'access-control-max-age': '600',
} as const

/**
 * Adds `POST /v1/tickets`: a single-use ticket for whoever presents a token, user and password, or a certificate.
 *
 * A page of another origin has to send `Authorization` itself, as its browser is not told to add what it has; and the
 * cookie with a token is not looked at. A ticket gets no ticket, so that it ends when it says.
 */
export function registerTickets(app: FastifyInstance, options: TicketRouteOptions): void {
  const places = withoutCookies(options.places)
  app.post(url, (request, reply) => issueTicket(request, reply, { ...options, places }))
  app.options(url, async (request, reply) => {
    admitOrigin(request, reply, options)
    return reply.code(204).headers(preflightAnswer).send()
  })
  app.route({
    method: ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE'],
    url,
    handler: async (_request, reply) => answerProblem(reply, { status: 405 }, { allow: 'POST, OPTIONS' }),
  })
}

/** Neither the gateway nor a webhook sees a cookie, which a browser adds to whatever a page sends. */
function withoutCookies({ clientCertificates, webhook }: CredentialPlaces): CredentialPlaces {
  const headers = webhook?.headers.filter(name => name.toLowerCase() !== 'cookie') ?? []
  return { clientCertificates, webhook: webhook && { ...webhook, headers } }
}

async function issueTicket(
  request: FastifyRequest,
  reply: FastifyReply,
  options: TicketRouteOptions,
): Promise<FastifyReply> {
  const { authenticator, tickets, places } = options
  const client = admitOrigin(request, reply, options)
  try {
    const attempt = attemptOf(request.raw, client, 'http', places)
    if (attempt.credential?.kind === 'ticket') throw new Ending('identity-refused', { hint: 'a ticket gets no ticket' })
    const { ticket, expires } = tickets.issue(await authenticator.authenticate(attempt, { requireUser: true }))
    reply.code(201).header('cache-control', 'no-store')
    return reply.send({ ticket, expires: new Date(expires).toISOString() })
  } catch (error) {
    const { challenge } = authenticator
    if (challenge !== '' && Ending.from(error).httpStatus === 401) reply.header('www-authenticate', challenge)
    throw error
  }
}

/** @throws {Ending} `origin-refused` */
function admitOrigin(
  request: FastifyRequest,
  reply: FastifyReply,
  { allowsOrigin, resolveClient }: TicketRouteOptions,
): Client {
  const client = resolveClient(request.raw)
  const { origin } = request.headers
  reply.header('vary', 'origin')
  if (!allowsOrigin(origin, client.host, client.secure)) {
    throw new Ending('origin-refused', { cause: `Origin: ${origin ?? 'none'}; Host: ${client.host ?? 'none'}` })
  }
  if (origin === undefined) return client
  reply.headers({ 'access-control-allow-origin': origin, 'access-control-expose-headers': 'retry-after' })
  return client
}
