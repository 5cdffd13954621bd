import type { FastifyInstance, FastifyRequest } from 'fastify'
import { GatewayError } from '../base/errors.js'

/** The framework does not wait for a body of these; of all others it does, OPTIONS too. */
const bodiless: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/**
 * Ends the wait for a request's body after so many milliseconds, with `body-timeout`. Node has such a limit for HTTP/1.1
 * only, and it ends the connection without an answer once there was one on it before.
 */
export function limitBodyTime(app: FastifyInstance, milliseconds: number): void {
  const timers = new WeakMap<FastifyRequest, NodeJS.Timeout>()
  app.addHook('preParsing', (request, _reply, payload, done) => {
    if (bodiless.has(request.method)) return done(null, payload)
    const giveUp = (): void => {
      // To whoever waits for the body it has failed; where nobody does, an error without a listener would end the process.
      if (payload.listenerCount('error') > 0) payload.emit('error', new GatewayError('body-timeout'))
    }
    timers.set(request, setTimeout(giveUp, milliseconds).unref())
    done(null, payload)
  })
  const stop = (request: FastifyRequest, _reply: unknown, done: () => void): void => {
    if (!bodiless.has(request.method)) clearTimeout(timers.get(request))
    done()
  }
  app.addHook('preValidation', stop)
  app.addHook('onResponse', stop)
}
