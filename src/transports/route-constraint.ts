import type { FastifyInstance } from 'fastify'

type Strategy = Parameters<FastifyInstance['addConstraintStrategy']>[0]

/**
 * Adds a constraint with which routes of the same URL share its requests; call it before adding such routes.
 *
 * @param deriveConstraint the value that a request has
 */
export function addRouteConstraint(
  app: FastifyInstance,
  name: string,
  deriveConstraint: Strategy['deriveConstraint'],
): void {
  const storage: Strategy['storage'] = () => {
    const handlers = new Map()
    return {
      get: value => handlers.get(value) ?? null,
      set: (value, handler) => void handlers.set(value, handler),
    }
  }
  app.addConstraintStrategy({ name, storage, deriveConstraint, validate: () => {} })
}
