import type { FastifyInstance, HTTPMethods } from 'fastify'
import { answerProblem } from '../http/problem.js'

const methods: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/** Answers 405 to all methods that a route does not have, and says which it has. */
export function refuseOtherMethods(app: FastifyInstance, url: string, allowed: readonly string[]): void {
  app.route({
    method: methods.filter(method => !allowed.includes(method)),
    url,
    handler: async (_request, reply) => answerProblem(reply, { status: 405 }, { allow: allowed.join(', ') }),
  })
}
