import { afterEach, expect, test } from 'vitest'
import { createMetrics, type Metrics, noTraffic } from '../../src/base/metrics.js'
import { prometheusText, WorkerMetrics } from '../../src/workers/worker-metrics.js'

const opened: Metrics[] = []
afterEach(() => {
  for (const metrics of opened.splice(0)) metrics.close()
})

function makeWorker() {
  const metrics = createMetrics()
  opened.push(metrics)
  const source = { metrics: () => metrics.registry.getMetricsAsJSON() }
  return { metrics, source }
}

async function valuesOf(all: WorkerMetrics): Promise<Map<string, number>> {
  const lines = (await prometheusText(await all.read()))
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
  return new Map(lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]))
}

const refusals = 'mqway_refusals_total{reason="too-many-connections"}'
const connections = 'mqway_connections{transport="tcp",state="opening"}'
const connects = 'mqway_upstream_connect_seconds_count'

test('metrics of workers are summed, or the larger or smaller one where that says more', async () => {
  const all = new WorkerMetrics(2)
  const [a, b] = [makeWorker(), makeWorker()]
  for (const [index, { metrics, source }] of [a, b].entries()) {
    all.add(source)
    metrics.refused('too-many-connections')
    metrics.trackConnection('tcp', noTraffic())('opening')
    metrics.upstreamConnected(0.2)
    metrics.certificateExpires(1000 * (index + 5))
  }
  const values = await valuesOf(all)
  expect(values.get(refusals)).toBe(2)
  expect(values.get(connections)).toBe(2)
  expect(values.get(connects)).toBe(2)
  expect(values.get('mqway_certificate_expiry_seconds')).toBe(5)
  expect([...values].filter(([name]) => name.startsWith('mqway_info')).map(([, value]) => value)).toEqual([1])
  expect(values.get('mqway_workers')).toBe(2)
  expect(values.get('mqway_workers_missing')).toBe(0)
  // It is rounded to a second.
  expect(values.get('process_start_time_seconds')).toBeLessThan(Date.now() / 1000 + 1)
})

test('counters never fall: those of a worker that ends, or does not answer, are the last ones', async () => {
  const all = new WorkerMetrics(2)
  const [a, b] = [makeWorker(), makeWorker()]
  let answers = true
  all.add(a.source)
  all.add({ metrics: () => (answers ? b.source.metrics() : Promise.reject(new Error('late'))) })
  for (const { metrics } of [a, b]) {
    metrics.refused('too-many-connections')
    metrics.trackConnection('tcp', noTraffic())('opening')
    metrics.upstreamConnected(0.2)
  }
  await all.read()
  answers = false
  const late = await valuesOf(all)
  expect([late.get(refusals), late.get(connects), late.get(connections)]).toEqual([2, 2, 1])
  expect(late.get('mqway_workers_missing')).toBe(1)
  all.ended(a.source)
  answers = true
  for (const _ of [1, 2]) {
    const left = await valuesOf(all)
    expect([left.get(refusals), left.get(connects), left.get(connections)]).toEqual([2, 2, 1])
    expect(left.get('mqway_worker_ends_total')).toBe(1)
  }
  const replacement = makeWorker()
  all.add(replacement.source)
  replacement.metrics.refused('too-many-connections')
  expect((await valuesOf(all)).get(refusals)).toBe(3)
})
