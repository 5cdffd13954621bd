import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError } from '../base/errors.js'
import { sendProblem } from '../http/problem.js'
import type { Operation } from './operation.js'
import type { TransportContext } from './transport-context.js'

const url = '/v1/connections/:connection'

/** `POST /v1/connections/{connection}` */
export const connectionsOperations: readonly Operation[] = [
  {
    method: 'post',
    path: '/v1/connections/{connection}',
    summary:
      'Gives an open event stream or socket fresh credentials, so that it does not end when the earlier ones expire',
    responses: {
      204: { description: 'The connection has the new credentials and their permissions' },
      403: { description: 'The connection belongs to another user', type: 'application/problem+json' },
      404: { description: 'There is no such connection', type: 'application/problem+json' },
    },
  },
]

/** Adds `POST /v1/connections/<connection>`. */
export function registerConnections(app: FastifyInstance, options: TransportContext): void {
  app.post<{ Params: { connection: string } }>(url, (request, reply) => renew(request, reply, options))
  options.gate.registerOtherMethods(app, { url, allowed: ['POST'], headers: 'authorization, content-type' })
}

async function renew(
  request: FastifyRequest<{ Params: { connection: string } }>,
  reply: FastifyReply,
  { gate, connections, renewElsewhere }: TransportContext,
): Promise<FastifyReply> {
  const { identity } = await gate.admit(request, reply)
  const { connection } = request.params
  try {
    const found = connections.renew(connection, identity) || ((await renewElsewhere?.(connection, identity)) ?? false)
    return found ? reply.code(204).send() : sendProblem(reply, { status: 404, detail: 'There is no such connection' })
  } catch (error) {
    // The caller is authenticated: 401 would ask for credentials that are refused again.
    const { text, reason } = GatewayError.from(error)
    if (reason !== 'identity-refused') throw error
    return sendProblem(reply, { status: 403, detail: text, reason })
  }
}
