import mqtt from 'mqtt'
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

interface Report {
  readonly requested: { readonly devices: readonly string[]; readonly missed?: readonly string[] } | null
  readonly written: readonly string[]
  readonly receipts: readonly { readonly device: string; readonly status: string }[]
}

describe('receipts in a gateway', () => {
  let gateway: TestGateway
  const start = async (config: ConfigInput = {}): Promise<void> => {
    gateway = await startTestGateway(config)
    onTestFinished(() => gateway.close())
  }
  beforeEach(() => start())

  const stream = async (query: string): Promise<void> => {
    const abort = new AbortController()
    onTestFinished(() => abort.abort())
    const response = await fetch(`${gateway.urls.http}/v1/events?${query}`, { signal: abort.signal })
    const reader = response.body?.getReader()
    let text = ''
    // The place alone, behind all that was there: from then on it is live.
    while (!/\nid: \S+\n\n$/.test(text)) text += Buffer.from((await reader?.read())?.value ?? []).toString()
  }
  const ask = async <T>(path: string, body?: unknown): Promise<T> => {
    const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }
    return (await (await fetch(`${gateway.urls.http}${path}`, init)).json()) as T
  }
  const reportOf = (id: string) => ask<Report>(`/v1/receipts?id=${id}`)

  it('tell a publisher to whom its message was written, who has done something with it, and who has not', async () => {
    const publisher = await mqtt.connectAsync(gateway.urls.mqtt)
    onTestFinished(() => publisher.endAsync(true))
    const told: { type: string; device?: string; devices?: string[] }[] = []
    publisher.on('message', (topic, payload) => {
      expect(topic).toBe('receipts/jobs/7')
      told.push(JSON.parse(payload.toString()))
    })
    await publisher.subscribeAsync('receipts/#', { qos: 1 })
    for (const device of ['hall', 'attic']) await stream(`topic=jobs/%23&device=${device}`)
    await stream('topic=other&device=cellar')
    const receipt = { from: 'present', within: '1s' }
    const { id } = await ask<{ id: string }>('/v1/publish', { topic: 'jobs/7', payload: 'print', receipt })
    await eventually(async () => (await reportOf(id)).written.length === 2)
    await ask('/v1/receipts?device=attic', { id, status: 'processed' })
    await eventually(() => told.length === 2)
    expect(told).toMatchObject([
      { type: 'receipt', id, device: 'attic', status: 'processed' },
      { type: 'missed', id, devices: ['hall'] },
    ])
    const report = await reportOf(id)
    expect([...(report.requested?.devices ?? [])].sort()).toEqual(['attic', 'hall'])
    expect(report).toMatchObject({
      requested: { missed: ['hall'] },
      written: ['attic', 'hall'],
      receipts: [{ device: 'attic', status: 'processed' }],
    })
  })

  it('know of each of a thousand messages to whom it was written', async () => {
    await stream('topic=jobs/%23&device=hall')
    const receipt = { from: ['hall', 'nobody'], within: '1m' }
    const messages = Array.from({ length: 1000 }, (_, index) => ({ topic: `jobs/${index}`, payload: '', receipt }))
    const { ids } = await ask<{ ids: string[] }>('/v1/publish', { messages })
    expect(new Set(ids).size).toBe(1000)
    for (const id of ids) await eventually(async () => (await reportOf(id)).written.includes('hall'))
  }, 60_000)
})
