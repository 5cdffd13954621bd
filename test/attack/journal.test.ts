import { once } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { z } from 'zod'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { eventually } from '../helpers/wait.js'
import { ask, openMqtt, publishPacket, send } from './scenarios/attacker.js'
import { ownTopicFlood, rrrFlood } from './scenarios/web-sockets.js'

const pollForm = z.object({ events: z.array(z.object({ payload: z.string() })), cursor: z.string(), gap: z.unknown() })

async function poll(http: string, query: string): Promise<z.output<typeof pollForm>> {
  return pollForm.parse(await (await fetch(new URL(`/v1/poll?${query}`, http))).json())
}

/** Publishes texts to `kept/x`, and returns the cursor before the first. */
async function publishKept(http: string, count: number): Promise<string> {
  const { cursor } = await poll(http, 'topic=kept/%23&timeout=0')
  const messages = Array.from({ length: count }, (_, index) => ({ topic: 'kept/x', payload: String(index) }))
  const response = await fetch(new URL('/v1/publish', http), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ messages }),
  })
  expect(response.status).toBe(201)
  return cursor
}

describe('a flood of topics of single connections', () => {
  it.each([ownTopicFlood, rrrFlood])('evicts nothing of other topics: $name', async flood => {
    const limits = { anonymous: true, limits: { anonymousPublishBytesPerSecond: '256KiB' } } as const
    const gateway = await startAttackedGateway({ push: { maxBytes: '1MiB' }, ...limits })
    onTestFinished(() => gateway.close())
    const cursor = await publishKept(gateway.http, 20)
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(10)
    await bystander.window()
    const target = { mqttPort: gateway.mqttPort, http: gateway.http, https: '', address: '127.0.0.4' }
    const end = new AbortController()
    const attack = flood.run(target, end.signal)
    await bystander.rounds(50)
    // Of 60,000 bytes each, but for the bystander's: far more than the journal keeps.
    await eventually(async () => (await gateway.metric('mqway_push_newest_event')) > 200)
    end.abort()
    await attack
    const query = `topic=kept/%23&timeout=0&cursor=${cursor}`
    const replay = await poll(gateway.http, query)
    expect(replay.gap).toBeNull()
    expect(replay.events.map(({ payload }) => payload)).toEqual(Array.from({ length: 20 }, (_, index) => String(index)))
    const report = await bystander.stop()
    const { run, waited } = await gateway.scheduling()
    expectUndisturbed(report, (100 * (run + waited)) / run)
  })
})

describe('clients without a user name, where others than this machine may connect', () => {
  const config = { anonymous: true, limits: { anonymousPublishesPerSecond: 10, anonymousPublishesBurst: 50 } } as const

  it('publish as fast as limits.anonymousPublishesPerSecond says, from one address, whatever they publish with', async () => {
    const gateway = await startAttackedGateway(config)
    onTestFinished(() => gateway.close())
    const url = new URL('/v1/socket', gateway.http.replace('http', 'ws'))
    const client = new WebSocket(url, { localAddress: '127.0.0.4' })
    onTestFinished(() => client.terminate())
    await once(client, 'open')
    const answers: { readonly type: string; readonly reason?: string }[] = []
    client.on('message', data => answers.push(JSON.parse(String(data))))
    for (let ref = 0; ref < 60; ref++) client.send(JSON.stringify({ type: 'send', payload: 'x', ref }))
    await eventually(() => answers.filter(({ type }) => type === 'ok' || type === 'error').length === 60)
    const refused = answers.filter(({ reason }) => reason === 'publishing-too-fast')
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.length).toBeLessThanOrEqual(10)
    // With MQTT, it is read more slowly.
    const target = { mqttPort: gateway.mqttPort, http: gateway.http, https: '' }
    const slow = await openMqtt({ ...target, address: '127.0.0.4' }, AbortSignal.timeout(5000))
    onTestFinished(() => void slow.destroy())
    const burst = Buffer.concat(Array.from({ length: 100 }, () => publishPacket('a', 'x')))
    await send(slow, burst, AbortSignal.timeout(5000))
    await eventually(async () => (await gateway.metric('mqway_publish_delays_total')) > 0)
    const publish = (address: string): Promise<number> =>
      ask({ ...target, address }, AbortSignal.timeout(5000), 'POST', '/v1/publish?topic=a', 'x', {
        'content-type': 'text/plain',
      })
    expect(await publish('127.0.0.4')).toBe(429)
    expect(await publish('127.0.0.5')).toBe(201)
  })
})
