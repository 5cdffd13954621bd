import { describe, expect, it } from 'vitest'
import { errorReasons } from '../../src/base/errors.js'
import { createMetrics, type Metrics, noTraffic } from '../../src/base/metrics.js'
import { SliceMonitor, sliceCauses } from '../../src/base/slice-monitor.js'

/** The lines of one metric, as `series value`. */
async function read({ registry }: Metrics, name: string): Promise<string[]> {
  const text = await registry.getSingleMetricAsString(name)
  return text.split('\n').filter(line => !line.startsWith('#'))
}

describe('the metrics', () => {
  it('have every series from the start, at zero', async () => {
    const metrics = createMetrics()
    for (const name of ['mqway_refusals_total', 'mqway_endings_total'])
      expect(await read(metrics, name)).toEqual(errorReasons.map(reason => `${name}{reason="${reason}"} 0`))
    expect(await read(metrics, 'mqway_connections')).toHaveLength(9)
    expect((await read(metrics, 'mqway_connections')).every(line => line.endsWith(' 0'))).toBe(true)
    metrics.close()
  })

  it('count refusals and endings by their reason, however often they are read', async () => {
    const metrics = createMetrics()
    metrics.refused('unknown-path')
    metrics.refused('unknown-path')
    metrics.ended('client-closed')
    for (let i = 0; i < 2; i++) {
      expect(await read(metrics, 'mqway_refusals_total')).toContain('mqway_refusals_total{reason="unknown-path"} 2')
      expect(await read(metrics, 'mqway_endings_total')).toContain('mqway_endings_total{reason="client-closed"} 1')
    }
    metrics.close()
  })

  it('follow a connection through its states, and keep its bytes when it has ended', async () => {
    const metrics = createMetrics()
    const traffic = noTraffic()
    const setState = metrics.trackConnection('tcp', traffic)
    const states = async (): Promise<string[]> =>
      (await read(metrics, 'mqway_connections')).filter(line => line.endsWith(' 1'))
    for (const state of ['opening', 'open', 'closing'] as const) {
      setState(state)
      setState(state)
      expect(await states()).toEqual([`mqway_connections{transport="tcp",state="${state}"} 1`])
    }
    traffic.bytesIn = 7
    setState('ended')
    setState('ended')
    setState('open')
    expect(await states()).toEqual([])
    expect(await read(metrics, 'mqway_bytes_total')).toContain('mqway_bytes_total{transport="tcp",direction="in"} 7')
    metrics.close()
  })
})

it('tells what has become of mails', async () => {
  const metrics = createMetrics()
  metrics.watchMails(() => ({ sent: 1, failed: 2, retried: 3, waiting: 4, collected: 6, dropped: 5 }))
  const text = await metrics.registry.metrics()
  expect(text.split('\n').filter(line => line.startsWith('mqway_mail'))).toEqual([
    'mqway_mails_sent_total 1',
    'mqway_mails_failed_total 2',
    'mqway_mail_retries_total 3',
    'mqway_mails_waiting 4',
    'mqway_mail_events_total 6',
    'mqway_mail_events_dropped_total 5',
  ])
  metrics.close()
})

it('counts for push what was delivered how, who listens, and what is in the journal', async () => {
  const metrics = createMetrics()
  const none = {
    catchingUp: 1,
    journalEvents: 5,
    newest: 9,
    gaps: 2,
    cutOff: 3,
    listeners: 6,
    filterBytes: 11,
    filtersRefused: 12,
    presencePublished: 7,
    presenceDropped: 8,
    clientsPublished: 9,
    clientsDropped: 10,
    receiptsOutstanding: { devices: 13, events: 14 },
  }
  metrics.watchPush(() => ({ ...none, connected: true, subscribers: 4, delivered: 10, replayed: 3, retained: 2 }))
  const lines = (await metrics.registry.metrics()).split('\n').filter(line => line.startsWith('mqway_push_'))
  expect(lines).toEqual([
    'mqway_push_receipts_total{outcome="stored"} 0',
    'mqway_push_receipts_total{outcome="missed"} 0',
    'mqway_push_connected 1',
    'mqway_push_catching_up 1',
    'mqway_push_subscribers 4',
    'mqway_push_listeners 6',
    'mqway_push_filter_bytes 11',
    'mqway_push_filters_refused_total 12',
    'mqway_push_journal_events 5',
    'mqway_push_newest_event 9',
    'mqway_push_deliveries_total{kind="live"} 5',
    'mqway_push_deliveries_total{kind="replayed"} 3',
    'mqway_push_deliveries_total{kind="retained"} 2',
    'mqway_push_gaps_total 2',
    'mqway_push_cut_off_total 3',
    'mqway_push_presence_messages_total 7',
    'mqway_push_presence_dropped_total 8',
    'mqway_push_client_messages_total 9',
    'mqway_push_client_messages_dropped_total 10',
    'mqway_push_receipts_outstanding 13',
    'mqway_push_receipts_outstanding_events 14',
  ])
  metrics.close()
})

it('of slow slices of the event loop have every cause', async () => {
  const metrics = createMetrics()
  const slices = new SliceMonitor({ onSlow: () => {}, threshold: 0, now: () => now })
  let now = 0
  metrics.watchSlices(() => slices.figures)
  slices.begin('journal')
  now = 250
  slices.begin('replay')
  slices.close()
  const series = (name: string, value: number) =>
    sliceCauses.map(cause => `${name}{cause="${cause}"} ${cause === 'journal' ? value : 0}`)
  for (const [name, value] of Object.entries({
    mqway_slow_slices_total: 1,
    mqway_slow_slices_seconds_total: 0.25,
    mqway_longest_slice_seconds: 0.25,
  })) {
    expect(await read(metrics, name)).toEqual(series(name, value))
  }
  metrics.close()
})
