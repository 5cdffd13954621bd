import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Authenticator } from '../access/authenticator.js'
import type { Client } from '../access/client-address.js'
import type { Tickets } from '../access/tickets.js'
import { GatewayError } from '../base/errors.js'
import { admitOrigin, type OriginAdmission, sendPreflight, setOriginHeaders } from '../http/cors.js'
import { sendProblem } from '../http/problem.js'
import { attemptOf, type CredentialOptions } from '../http/request-identity.js'

export interface TicketRouteOptions extends OriginAdmission {
  readonly authenticator: Authenticator
  readonly tickets: Tickets
  readonly credentials: CredentialOptions
  /** Counts a request of a client. @throws {GatewayError} `too-many-requests` */
  readonly count: (client: Client) => void
}

const url = '/v1/tickets'

const preflight = { methods: 'POST', headers: 'authorization, content-type' }

/**
 * Adds `POST /v1/tickets`: a single-use ticket for a token, user and password, or a certificate.
 *
 * A page of another origin has to send `Authorization` itself, and cookies are ignored. A ticket gets no ticket, so that it cannot be prolonged.
 */
export function registerTickets(app: FastifyInstance, options: TicketRouteOptions): void {
  const credentials = withoutCookies(options.credentials)
  app.post(url, (request, reply) => issueTicket(request, reply, { ...options, credentials }))
  app.options(url, async (request, reply) => sendPreflight(request, reply, options, preflight))
  app.route({
    method: ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE'],
    url,
    handler: async (request, reply) => {
      setOriginHeaders(request, reply, options.resolveClient(request.raw), options)
      return sendProblem(reply, { status: 405 }, { allow: 'POST, OPTIONS' })
    },
  })
}

/** Neither the gateway nor a webhook sees cookies, which a browser adds to every request. */
function withoutCookies({ clientCertificates, webhook }: CredentialOptions): CredentialOptions {
  const headers = webhook?.headers.filter(name => name.toLowerCase() !== 'cookie') ?? []
  return { clientCertificates, webhook: webhook && { ...webhook, headers } }
}

async function issueTicket(
  request: FastifyRequest,
  reply: FastifyReply,
  options: TicketRouteOptions,
): Promise<FastifyReply> {
  const { authenticator, tickets, credentials } = options
  const client = admitOrigin(request, reply, options)
  options.count(client)
  try {
    const attempt = attemptOf(request.raw, client, 'http', credentials)
    if (attempt.credential?.kind === 'ticket')
      throw new GatewayError('identity-refused', { hint: 'a ticket gets no ticket' })
    const { ticket, expires } = tickets.issue(await authenticator.authenticate(attempt, { requireUser: true }))
    reply.code(201).header('cache-control', 'no-store')
    return reply.send({ ticket, expires: new Date(expires).toISOString() })
  } catch (error) {
    const challenge = authenticator.challengeFor(request.headers)
    if (challenge !== '' && GatewayError.from(error).httpStatus === 401) reply.header('www-authenticate', challenge)
    throw error
  }
}
