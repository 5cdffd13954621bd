import { describe, expect, it, onTestFinished } from 'vitest'
import { compileClientResolver } from '../../src/access/client-address.js'
import { compileDetailReaders } from '../../src/access/detail-readers.js'
import { GatewayError } from '../../src/base/errors.js'
import { version } from '../../src/base/version.js'
import { createApp } from '../../src/server/app.js'
import {
  compileHealthCheck,
  type HealthCheckOptions,
  type HealthOptions,
  registerHealth,
} from '../../src/server/health.js'
import { recordingLog, requestLimits, testMetrics } from './rig.js'

async function start(
  options: Partial<HealthOptions & HealthCheckOptions> = {},
  trustedProxies: readonly string[] = [],
) {
  const recording = recordingLog()
  const resolveClient = compileClientResolver(trustedProxies)
  const app = createApp({ resolveClient, limits: requestLimits, log: recording.log, metrics: testMetrics() })
  const brokers = [{ name: 'embedded', probe: async () => 1.23 }]
  registerHealth(app, {
    checkHealth: compileHealthCheck({ brokers, log: recording.log, ...options }),
    isShuttingDown: () => false,
    readMetrics: () => testMetrics().registry.metrics(),
    seesDetails: compileDetailReaders(['loopback']),
    resolveClient,
    ...options,
  })
  await app.ready()
  onTestFinished(() => app.close())
  return { app, ...recording }
}

describe('/healthz', () => {
  it('says that the process is there, and its version', async () => {
    const { app } = await start()
    const answer = await app.inject('/healthz')
    expect([answer.statusCode, answer.json()]).toEqual([200, { status: 'ok', version }])
    expect(answer.headers['cache-control']).toBe('no-store')
  })
})

describe('/readyz', () => {
  it('says how long the broker took', async () => {
    const { app } = await start()
    const answer = await app.inject('/readyz')
    expect([answer.statusCode, answer.json()]).toEqual([200, { status: 'ready', broker: 'embedded', roundTripMs: 1.2 }])
  })

  it.each([
    [new GatewayError('broker-refused', { cause: 'secret' }), 'The MQTT broker does not accept connections'],
    [new Error('The broker did not answer within 2000 ms'), 'The broker did not answer within 2000 ms'],
  ])('says why it does not answer: %s', async (error, reason) => {
    const { app, line } = await start({ brokers: [{ name: 'mqtt://b:1883', probe: () => Promise.reject(error) }] })
    const answer = await app.inject('/readyz')
    expect([answer.statusCode, answer.json(), answer.headers['retry-after']]).toEqual([
      503,
      { status: 'unavailable', broker: 'mqtt://b:1883', detail: `The broker mqtt://b:1883: ${reason}` },
      '5',
    ])
    expect(await line(/^The broker is not ready/)).toMatchObject({ level: 40, broker: 'mqtt://b:1883' })
  })

  it('asks every broker, and names the one that fails', async () => {
    const broken = { name: 'b', probe: () => Promise.reject(new Error('gone')) }
    const { app } = await start({ brokers: [{ name: 'a', probe: async () => 1 }, broken] })
    const answer = await app.inject('/readyz')
    expect(answer.json()).toEqual({
      status: 'unavailable',
      brokers: [
        { broker: 'a', roundTripMs: 1 },
        { broker: 'b', detail: 'gone' },
      ],
      detail: 'The broker b: gone',
    })
  })

  it('probes once for all who ask at the same time, and for a second after', async () => {
    let probes = 0
    let finish: ((ms: number) => void) | undefined
    const probe = () => {
      probes += 1
      return new Promise<number>(resolve => {
        finish = resolve
      })
    }
    const { app } = await start({ brokers: [{ name: 'a', probe }] })
    const answers = [app.inject('/readyz'), app.inject('/readyz'), app.inject('/readyz')]
    while (finish === undefined) await new Promise(resolve => setImmediate(resolve))
    finish(1)
    expect((await Promise.all(answers)).map(({ statusCode }) => statusCode)).toEqual([200, 200, 200])
    await app.inject('/readyz')
    expect(probes).toBe(1)
  })

  it('does not wait for a broker that is silent, nor ask it a second time', { timeout: 10_000 }, async () => {
    let probes = 0
    const probe = () => {
      probes += 1
      return new Promise<number>(() => {})
    }
    const { app } = await start({ brokers: [{ name: 'a', probe }] })
    expect((await app.inject('/readyz')).json()).toMatchObject({ detail: 'The broker a: no answer within 3 s' })
    await app.inject('/readyz')
    expect(probes).toBe(1)
  })

  it('is not ready while it shuts down', async () => {
    const { app } = await start({ isShuttingDown: () => true })
    const answer = await app.inject('/readyz')
    expect([answer.statusCode, answer.json().detail]).toEqual([503, 'The gateway is shutting down'])
  })
})

describe('/metrics', () => {
  it('is for those that metrics.allow names', async () => {
    const { app } = await start()
    const allowed = await app.inject({ url: '/metrics', remoteAddress: '127.0.0.1' })
    expect(allowed.headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/)
    expect(allowed.body).toContain('mqway_refusals_total')
    const refused = await app.inject({ url: '/metrics', remoteAddress: '192.0.2.1' })
    expect([refused.statusCode, refused.body]).toEqual([403, 'The option metrics.allow does not name 192.0.2.1.\n'])
  })

  it('is for nobody behind a proxy that is not known, since the proxy’s address says nothing', async () => {
    const { app } = await start()
    const answer = await app.inject({ url: '/metrics', headers: { 'x-forwarded-for': '127.0.0.1' } })
    expect([answer.statusCode, answer.body]).toEqual([403, expect.stringContaining('trustedProxies')])
  })

  it('goes by the client’s address behind a trusted proxy', async () => {
    const { app } = await start({ seesDetails: compileDetailReaders(['192.0.2.0/24']) }, ['loopback'])
    const ask = (address: string) => app.inject({ url: '/metrics', headers: { 'x-forwarded-for': address } })
    expect((await ask('192.0.2.1')).statusCode).toBe(200)
    expect((await ask('198.51.100.1')).statusCode).toBe(403)
  })
})
