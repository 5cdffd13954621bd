import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { onTestFinished } from 'vitest'
import { compileClientResolver } from '../../src/access/client-address.js'
import { createLog } from '../../src/base/log.js'
import { createMetrics } from '../../src/base/metrics.js'
import { createApp } from '../../src/server/app.js'

/** The gateway's app, with the routes of a test, on a port of loopback. */
export async function serve(
  routes: (app: FastifyInstance) => void,
  limits: { bodySize?: number; bodyTimeout?: number } = {},
): Promise<string> {
  const metrics = createMetrics()
  const app = createApp({
    resolveClient: compileClientResolver([]),
    limits: { bodySize: 1024, bodyTimeout: 5000, urlLength: 8192, ...limits },
    log: createLog({ level: 'silent', format: 'json' }),
    metrics,
  })
  routes(app)
  await app.listen({ port: 0, host: '127.0.0.1' })
  onTestFinished(async () => {
    await app.close()
    metrics.close()
  })
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
}
