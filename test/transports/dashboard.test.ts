import { expect, it, onTestFinished } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { createMetrics, type MetricValues } from '../../src/base/metrics.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { TopicActivity } from '../../src/hub/topic-activity.js'
import { registerDashboard } from '../../src/transports/dashboard.js'
import { snapshotSchema, topicsSchema } from '../../src/transports/dashboard-feed.js'
import { eventually } from '../helpers/wait.js'
import { openSource, type TestSource } from './event-source.js'
import { type Rig, startRig } from './rig.js'

const metrics = createMetrics()
metrics.refused('too-many-connections')

interface Started {
  readonly rig: Rig
  readonly activity: TopicActivity
  readonly reads: () => number
  open(): Promise<TestSource>
}

interface StartOptions {
  readonly config?: ConfigInput
  readonly requireAdmin?: () => void
  readonly readMetrics?: () => Promise<MetricValues>
}

async function start({ config, requireAdmin = () => {}, readMetrics }: StartOptions = {}): Promise<Started> {
  let reads = 0
  let activity: TopicActivity | undefined
  const rig = await startRig({
    ...(config && { config }),
    register: (app, transport) => {
      activity = new TopicActivity({ journal: transport.push.journal })
      registerDashboard(app, {
        ...transport,
        requireAdmin,
        requiresUser: false,
        readMetrics: () => {
          reads++
          return readMetrics?.() ?? metrics.registry.getMetricsAsJSON()
        },
        checkHealth: async () => ({ isReady: false, detail: 'slow', brokers: [{ broker: 'b', detail: 'slow' }] }),
        topics: activity,
        interval: 20,
        facts: { maxConnections: 7, maxEvents: 9 },
      })
    },
  })
  onTestFinished(() => rig.close())
  if (!activity) throw new Error('not registered')
  return { rig, activity, reads: () => reads, open: () => openSource(`${rig.url}/v1/dashboard/events`) }
}

it('sends the facts, then snapshots with the health, the metrics by series, and the busiest topics', async () => {
  const { rig, open } = await start()
  const source = await open()
  onTestFinished(() => source.leave())
  await rig.publish('a/b', 'hällo')
  await rig.publish('binary', Buffer.of(0xff))
  await rig.publish('long', 'ä'.repeat(200))
  await eventually(() => source.of('topics').some(list => Array.isArray(list) && list.length === 3))
  expect(source.of('welcome')).toEqual([
    expect.objectContaining({ push: true, maxConnections: 7, maxEvents: 9, interval: 2 }),
  ])
  expect(source.of('welcome')[0]?.['reasons']).toHaveProperty('client-closed', 'The client closed the connection')
  const snapshot = snapshotSchema.parse(source.of('snapshot')[0])
  expect(snapshot.health).toEqual({ ready: false, detail: 'slow', brokers: [{ broker: 'b', detail: 'slow' }] })
  expect(snapshot.metrics).toMatchObject({ 'mqway_refusals_total{reason="too-many-connections"}': 1 })
  const idle = Object.entries(snapshot.metrics ?? {}).filter(([name, value]) => value === 0 || name.includes('_bucket'))
  expect(idle).toEqual([])
  const topics = topicsSchema.parse(source.of('topics').at(-1))
  expect(topics.find(({ topic }) => topic === 'a/b')).toMatchObject({ messages: 1, size: 6, payload: 'hällo' })
  expect(topics.find(({ topic }) => topic === 'binary')).toMatchObject({ payloadBase64: '/w==' })
  expect(topics.find(({ topic }) => topic === 'long')).toMatchObject({ size: 400, payload: 'ä'.repeat(128) })
})

it('leaves out payloads that the rules do not let the caller read', async () => {
  const access = { rules: [{ to: 'anonymous' as const, subscribe: ['open/#'], publish: ['#'] }] }
  const { rig, open } = await start({ config: { access } })
  const source = await open()
  onTestFinished(() => source.leave())
  await rig.publish('open/a', 'public')
  await rig.publish('secret/a', 'private')
  await eventually(() => source.of('topics').some(list => Array.isArray(list) && list.length === 2))
  const topics = topicsSchema.parse(source.of('topics').at(-1))
  expect(topics.find(({ topic }) => topic === 'open/a')).toHaveProperty('payload', 'public')
  expect(topics.find(({ topic }) => topic === 'secret/a')).toMatchObject({ messages: 1, size: 7 })
  expect(source.parser.events.map(({ data }) => data).join()).not.toContain('private')
})

it('makes one snapshot for all, and none while nobody watches', async () => {
  const { rig, activity, open, reads } = await start()
  expect(reads()).toBe(0)
  const sources = [await open(), await open(), await open()]
  await eventually(() => sources.every(source => source.of('snapshot').length >= 5))
  expect(reads()).toBeLessThan(2 * Math.max(...sources.map(source => source.of('snapshot').length)))
  for (const source of sources) source.leave()
  await eventually(() => rig.log.lines.filter(({ reason }) => reason === 'client-closed').length === 3)
  const before = reads()
  await rig.publish('a')
  expect(activity.busiest(1)).toEqual([])
  // These take longer than an interval.
  const begin = performance.now()
  while (performance.now() - begin < 60) await fetch(`${rig.url}/nothing`)
  expect(reads()).toBeLessThanOrEqual(before + 1)
})

it('is for administrators, and ends when a viewer is none any more', async () => {
  let isAdmin = false
  const requireAdmin = (): void => {
    if (!isAdmin) throw new GatewayError('admin-required')
  }
  const { rig, open } = await start({ requireAdmin })
  expect((await fetch(`${rig.url}/v1/dashboard/events`)).status).toBe(403)
  isAdmin = true
  const source = await open()
  await eventually(() => source.of('snapshot').length > 0)
  isAdmin = false
  await source.end()
  expect(source.of('end')).toEqual([expect.objectContaining({ reason: 'admin-required' })])
})

it('ends with the reason when the gateway shuts down', async () => {
  const { rig, open } = await start()
  const source = await open()
  await eventually(() => source.of('snapshot').length > 0)
  await rig.close()
  expect(source.of('end')).toEqual([expect.objectContaining({ reason: 'shutting-down' })])
})

it('goes on without metrics where a worker does not answer', async () => {
  const { open } = await start({ readMetrics: () => Promise.reject(new Error('late')) })
  const source = await open()
  onTestFinished(() => source.leave())
  await eventually(() => source.of('snapshot').length > 1)
  expect(snapshotSchema.parse(source.of('snapshot')[1]).metrics).toBeUndefined()
})

it('has 16 viewers of one network, and then refuses more', async () => {
  const { rig, open } = await start()
  const sources = await Promise.all(Array.from({ length: 16 }, open))
  const refused = await fetch(`${rig.url}/v1/dashboard/events`)
  expect([refused.status, ((await refused.json()) as { reason: string }).reason]).toEqual([
    429,
    'too-many-from-address',
  ])
  sources[0]?.leave()
  await eventually(async () => {
    const another = await open()
    onTestFinished(() => another.leave())
    return another.status === 200
  })
  for (const source of sources) source.leave()
})

it('ends a viewer that does not read, and keeps at most some snapshots for it', async () => {
  const wide: MetricValues = [
    {
      name: 'wide',
      help: '',
      type: 'gauge' as never,
      collect: () => {},
      aggregator: 'sum',
      values: Array.from({ length: 50 }, (_, index) => ({ value: 1, labels: { name: 'x'.repeat(20_000) + index } })),
    },
  ]
  const { rig, open } = await start({ readMetrics: async () => wide })
  const source = await open()
  source.pause()
  await eventually(() => rig.log.lines.some(({ reason }) => reason === 'client-too-slow'))
  source.resume()
  await source.end()
})
