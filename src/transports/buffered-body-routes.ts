import type { FastifyInstance, FastifyRequest } from 'fastify'
import { GatewayError } from '../base/errors.js'
import type { Caller } from '../http/api-gate.js'
import type { BodySender } from '../http/body-budget.js'
import { bufferBodies } from '../http/buffered-bodies.js'
import type { TransportContext } from './transport-context.js'

/** A request of an admitted caller, with its body. */
export interface AdmittedRequest {
  readonly request: FastifyRequest
  readonly caller: Caller
  readonly body: Buffer
}

/**
 * Adds routes that buffer the bodies of admitted callers, and of no others.
 *
 * @param routes adds them; in a handler, `admitted` returns the request with its caller and body
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
