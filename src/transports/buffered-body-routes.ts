import type { FastifyInstance, FastifyRequest } from 'fastify'
import { GatewayError } from '../base/errors.js'
import type { Caller } from '../http/api-gate.js'
import type { BodySender } from '../http/body-budget.js'
import { bufferBodies } from '../http/buffered-bodies.js'
import { sendProblem } from '../http/problem.js'
import type { TransportContext } from './transport-context.js'

/** A request whose caller was let in, with its body. */
export interface AdmittedRequest {
  readonly request: FastifyRequest
  readonly caller: Caller
  readonly body: Buffer
}

/**
 * Adds routes whose requests have a body that is kept: of those who are let in, and of nobody else.
 *
 * @param routes adds them; `admitted` tells, in a handler, who has sent what
 */
export function registerBufferedBodyRoutes(
  app: FastifyInstance,
  { gate, bodies }: Pick<TransportContext, 'gate' | 'bodies'>,
  routes: (scope: FastifyInstance, admitted: (request: FastifyRequest) => AdmittedRequest) => void,
): void {
  app.register(async scope => {
    const callers = new WeakMap<FastifyRequest, Caller>()
    scope.addHook('onRequest', async (request, reply) => {
      callers.set(request, await gate.admit(request, reply))
    })
    const callerOf = (request: FastifyRequest): Caller => {
      const caller = callers.get(request)
      if (!caller) throw new GatewayError('internal-error')
      return caller
    }
    const senderOf = (request: FastifyRequest): BodySender => {
      const { client, identity } = callerOf(request)
      return { address: client.address, user: identity.user }
    }
    bufferBodies(scope, { ...bodies, senderOf })
    routes(scope, request => ({
      request,
      caller: callerOf(request),
      body: Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0),
    }))
  })
}

/** Methods that a route can have, besides OPTIONS. */
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/** Answers what a page of another origin may ask of `url`, and 405 to other methods. */
export function registerOtherMethods(
  app: FastifyInstance,
  { gate, url, allowed, headers }: Pick<TransportContext, 'gate'> & { url: string; allowed: string[]; headers: string },
): void {
  const preflight = { methods: allowed.join(', '), headers }
  app.options(url, async (request, reply) => gate.preflight(request, reply, preflight))
  const allow = [...allowed, 'OPTIONS'].join(', ')
  app.route({
    method: methods.filter(method => !allowed.includes(method) && !(method === 'HEAD' && allowed.includes('GET'))),
    url,
    handler: async (request, reply) => {
      gate.setOriginHeaders(request, reply)
      return sendProblem(reply, { status: 405 }, { allow })
    },
  })
}
