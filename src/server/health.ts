import type { FastifyInstance, FastifyReply } from 'fastify'
import { prometheusContentType } from 'prom-client'
import type { ClientResolver } from '../access/client-address.js'
import type { DetailReaders } from '../access/detail-readers.js'
import type { Logger } from '../base/log.js'
import { version } from '../base/version.js'
import { type BrokerReport, type ProbedBroker, readinessCheck } from './readiness.js'

/** Whether the gateway can serve. */
export interface Health {
  readonly isReady: boolean
  /** Why it is not ready; `undefined` if it is. */
  readonly detail: string | undefined
  readonly brokers: readonly BrokerReport[]
}

export interface HealthCheckOptions {
  /** All brokers; the gateway is ready if all respond. */
  readonly brokers: readonly ProbedBroker[]
  /** The reason for which push has no session with the broker; `undefined` with one; left out without push. */
  readonly pushFailure?: (() => string | undefined) | undefined
  /** Why the journal is not available; `undefined` while it is; left out without push. */
  readonly journalFailure?: (() => string | undefined) | undefined
  readonly log: Logger
}

export interface HealthOptions {
  readonly checkHealth: () => Promise<Health>
  readonly isShuttingDown: () => boolean
  /** The metrics in the text format of Prometheus. */
  readonly readMetrics: () => Promise<string>
  /** Clients that may read `/metrics`, and addresses at `/readyz`. */
  readonly seesDetails: DetailReaders
  readonly resolveClient: ClientResolver
}

/** `Retry-After`, in seconds. */
const retryAfter = 5

/** Compiles the check of `/readyz`: it never rejects, and takes 3 s at most. */
export function compileHealthCheck(options: HealthCheckOptions): () => Promise<Health> {
  const checks = options.brokers.map(broker => readinessCheck(broker, options.log))
  return async () => {
    const brokers = await Promise.all(checks.map(check => check()))
    const detail = detailOf(brokers, options)
    return { isReady: detail === undefined, detail, brokers }
  }
}

/** The first reason for which the gateway is not ready. */
function detailOf(
  brokers: readonly BrokerReport[],
  { pushFailure, journalFailure }: HealthCheckOptions,
): string | undefined {
  const failed = brokers.find(({ detail }) => detail !== undefined)
  if (failed) return `The broker ${failed.broker}: ${failed.detail}`
  const push = pushFailure?.()
  if (push !== undefined) return `Push has no session with the broker: ${push}`
  const journal = journalFailure?.()
  return journal === undefined ? undefined : `The journal of push is not available: ${journal}`
}

/**
 * Adds `/healthz` (the process answers), `/readyz` (its brokers answer, and push has its session) and `/metrics` (for Prometheus).
 */
export function registerHealth(app: FastifyInstance, options: HealthOptions): void {
  app.get('/healthz', async (_request, reply) => {
    reply.header('cache-control', 'no-store')
    return { status: 'ok', version }
  })

  app.get('/readyz', async (request, reply) => {
    const isDetailed = options.seesDetails(options.resolveClient(request.raw))
    if (options.isShuttingDown()) return unavailable(reply, { detail: 'The gateway is shutting down' })
    const { isReady, detail, brokers } = await options.checkHealth()
    const report = brokers.length === 1 ? brokers[0] : { brokers }
    if (!isReady) return unavailable(reply, isDetailed && { ...report, detail })
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
