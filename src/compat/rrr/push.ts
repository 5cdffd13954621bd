import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { GatewayError } from '../../base/errors.js'
import { isUserName } from '../../base/identity.js'
import type { RrrConfig } from '../../config/compat.js'
import { readQuery } from '../../http/parameters.js'
import { sendProblem } from '../../http/problem.js'
import { OpenPolls } from '../../transports/poll/open-polls.js'
import { publisherAccount } from '../../transports/publishing.js'
import { addRouteConstraint } from '../../transports/route-constraint.js'
import { responseOf } from '../../transports/stream-writer.js'
import { authorizeSubscribe, deviceOf } from '../../transports/subscriptions.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { HandleRequest } from './handle-request.js'
import { Handles } from './handles.js'
import { emptyContent, responseBody } from './response.js'

export interface RrrOptions extends TransportContext {
  readonly config: RrrConfig
  /** Made for the same configuration; default: new ones. */
  readonly handles?: Handles | undefined
  /** Milliseconds since 1970; the computer's clock when left out. */
  readonly now?: () => number
}

const query = z.object({
  handle: z
    .string({ error: ({ input }) => (input === undefined ? 'is missing' : 'must be there once') })
    .refine(
      name => isUserName(name) && !/[+#/]/.test(name),
      'must have 1 to 255 bytes, and no +, #, / or control characters',
    ),
})

/** Under the prefix `/`, only requests with a handle are RRR's; the router constraint that selects them. */
const constraint = 'rrrHandle'

/**
 * Adds RRR's push over HTTP: `GET <prefix>/?handle=1`, whatever the path below the prefix, gets the next message of
 * `push/1`, or an empty one after `wait`.
 *
 * @returns ends waiting requests with an empty response, and refuses new ones
 */
export function registerRrr(app: FastifyInstance, options: RrrOptions): { close(): void } {
  const { push, state, config, now } = options
  const handles = options.handles ?? new Handles({ journal: push.journal, state, config, now })
  const polls = options.polls ?? new OpenPolls()
  let lastId = 0
  const answer = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { name, content } = await contentFor(request, reply, options, handles, polls)
    reply.header('cache-control', 'no-store').type('application/json; charset=utf-8')
    return reply.send(responseBody(content, name, ++lastId))
  }
  if (config.prefix === '/')
    addRouteConstraint(app, constraint, ({ url = '' }) => (/[?&]handle=/.test(url) ? 'given' : undefined))
  app.register(async scope => {
    refuseWithProblems(scope, options)
    if (config.prefix === '/') {
      scope.get('/*', { constraints: { [constraint]: 'given' } }, answer)
      return
    }
    for (const url of [config.prefix, `${config.prefix}/*`]) {
      scope.get(url, answer)
      options.gate.registerOtherMethods(scope, { url, allowed: ['GET', 'HEAD'] })
    }
  })
  return {
    close: () => {
      polls.close()
      handles.close()
    },
  }
}

async function contentFor(
  request: FastifyRequest,
  reply: FastifyReply,
  options: RrrOptions,
  handles: Handles,
  polls: OpenPolls,
): Promise<{ name: string; content: Buffer }> {
  const caller = await options.gate.admit(request, reply, { takesAway: true })
  const { handle: name } = readQuery(request, query)
  authorizeSubscribe(caller.permissions, [`push/${name}`])
  // The client may have disconnected during authentication.
  if (request.method === 'HEAD' || request.raw.socket.destroyed) return { name, content: emptyContent }
  polls.makeRoom()
  const handle = handles.take(name, publisherAccount(caller))
  try {
    // First, so that the older one does not count towards the caller's connections.
    handle.request?.replace()
    const handleRequest: HandleRequest = new HandleRequest(options, {
      ...{ handle, caller },
      device: deviceOf(caller.identity, name),
      response: responseOf(reply),
      wait: options.config.wait,
      onEnd: () => polls.delete(handleRequest),
    })
    polls.add(handleRequest)
    return { name, content: await handleRequest.content }
  } finally {
    handles.release(handle)
  }
}

/** Errors are problem+json; RRR itself has no error responses. */
function refuseWithProblems(scope: FastifyInstance, { metrics, log }: RrrOptions): void {
  scope.setErrorHandler((error, request, reply) => {
    if (!(error instanceof GatewayError)) throw error
    const { reason, httpStatus: status, text: detail, level, cause, retryAfter } = error
    metrics.refused(reason)
    log[level]({ path: request.routeOptions.url, reason, status, err: cause }, detail)
    const headers = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }
    return sendProblem(reply, { status, detail, reason }, headers as Record<string, string>)
  })
}
