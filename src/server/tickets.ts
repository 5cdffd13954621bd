import type { FastifyInstance } from 'fastify'
import type { OriginPolicy } from '../access/origins.js'
import type { Tickets } from '../access/tickets.js'
import type { ApiGate } from '../http/api-gate.js'
import type { CredentialOptions } from '../http/request-identity.js'

export interface TicketRouteOptions {
  readonly gate: ApiGate
  readonly tickets: Tickets
  readonly credentials: CredentialOptions
  readonly allowsOrigin: OriginPolicy
}

const url = '/v1/tickets'

/**
 * Adds `POST /v1/tickets`: a single-use ticket for a token, user and password, or a certificate.
 *
 * A page of another origin has to send `Authorization` itself, and cookies are ignored.
 */
export function registerTickets(app: FastifyInstance, options: TicketRouteOptions): void {
  const { tickets, allowsOrigin } = options
  const credentials = withoutCookies(options.credentials)
  const gate = options.gate.with({ allowsOrigin, credentials, allowsCredentials: undefined })
  app.post(url, async (request, reply) => {
    const { identity } = await gate.admit(request, reply, { issuesTicket: true })
    const { ticket, expires } = await tickets.issue(identity)
    reply.code(201).header('cache-control', 'no-store')
    return reply.send({ ticket, expires: new Date(expires).toISOString() })
  })
  gate.registerOtherMethods(app, { url, allowed: ['POST'], headers: 'authorization, content-type' })
}

/** Neither the gateway nor a webhook sees cookies, which a browser adds to every request. */
function withoutCookies({ clientCertificates, webhook }: CredentialOptions): CredentialOptions {
  const headers = webhook?.headers.filter(name => name.toLowerCase() !== 'cookie') ?? []
  return { clientCertificates, webhook: webhook && { ...webhook, headers } }
}
