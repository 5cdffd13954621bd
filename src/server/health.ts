import type { FastifyInstance, FastifyReply } from 'fastify'
import { prometheusContentType } from 'prom-client'
import type { ClientResolver } from '../access/client-address.js'
import type { DetailReaders } from '../access/detail-readers.js'
import type { Logger } from '../base/log.js'
import { version } from '../base/version.js'
import { type ProbedBroker, readinessCheck } from './readiness.js'

export interface HealthOptions {
  /** All brokers; the gateway is ready if all respond. */
  readonly brokers: readonly ProbedBroker[]
  /** The reason for which push has no session with the broker; `undefined` with one; left out without push. */
  readonly pushFailure?: (() => string | undefined) | undefined
  /** Why the journal is not available; `undefined` while it is; left out without push. */
  readonly journalFailure?: (() => string | undefined) | undefined
  readonly isShuttingDown: () => boolean
  /** The metrics in the text format of Prometheus. */
  readonly readMetrics: () => Promise<string>
  /** Clients that may read `/metrics`, and addresses at `/readyz`. */
  readonly seesDetails: DetailReaders
  readonly resolveClient: ClientResolver
  readonly log: Logger
}

/** `Retry-After`, in seconds. */
const retryAfter = 5

/**
 * Adds `/healthz` (the process answers), `/readyz` (its brokers answer, and push has its session) and `/metrics` (for Prometheus).
 */
export function registerHealth(app: FastifyInstance, options: HealthOptions): void {
  const checks = options.brokers.map(broker => readinessCheck(broker, options.log))

  app.get('/healthz', async (_request, reply) => {
    reply.header('cache-control', 'no-store')
    return { status: 'ok', version }
  })

  app.get('/readyz', async (request, reply) => {
    const isDetailed = options.seesDetails(options.resolveClient(request.raw))
    if (options.isShuttingDown()) return unavailable(reply, { detail: 'The gateway is shutting down' })
    const brokers = await Promise.all(checks.map(check => check()))
    const failed = brokers.find(({ detail }) => detail !== undefined)
    const report = brokers.length === 1 ? brokers[0] : { brokers }
    if (failed)
      return unavailable(reply, isDetailed && { ...report, detail: `The broker ${failed.broker}: ${failed.detail}` })
    const pushFailure = options.pushFailure?.()
    if (pushFailure !== undefined) {
      return unavailable(
        reply,
        isDetailed && { ...report, detail: `Push has no session with the broker: ${pushFailure}` },
      )
    }
    const journalFailure = options.journalFailure?.()
    if (journalFailure !== undefined) {
      return unavailable(
        reply,
        isDetailed && { ...report, detail: `The journal of push is not available: ${journalFailure}` },
      )
    }
    reply.header('cache-control', 'no-store')
    return { status: 'ready', ...(isDetailed && report) }
  })

  app.get('/metrics', async (request, reply) => {
    const client = options.resolveClient(request.raw)
    reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store')
    if (client.viaUnknownProxy) {
      return reply.code(403).send('Not through a proxy that the option trustedProxies does not name.\n')
    }
    if (!options.seesDetails(client)) {
      return reply.code(403).send(`The option metrics.allow does not name ${client.address}.\n`)
    }
    return reply.type(prometheusContentType).send(await options.readMetrics())
  })
}

function unavailable(reply: FastifyReply, report: object | false): FastifyReply {
  return reply
    .code(503)
    .headers({ 'retry-after': String(retryAfter), 'cache-control': 'no-store' })
    .send({ status: 'unavailable', ...report })
}
