import mqtt, { type MqttClient } from 'mqtt'
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

/** What is told of somebody who comes or goes. */
interface Told {
  readonly event: 'join' | 'leave'
  readonly device: string
  readonly transport: string
  readonly topic: string
  readonly count: number
}

describe('presence in a gateway', () => {
  let gateway: TestGateway
  beforeEach(async () => {
    gateway = await startTestGateway({ limits: { requestsPerSecond: 'off' }, push: { presence: { grace: '1s' } } })
    onTestFinished(() => gateway.close())
  })
  const connect = async (clientId: string): Promise<MqttClient> => {
    const client = await mqtt.connectAsync(gateway.urls.mqtt, { clientId, reconnectPeriod: 0 })
    onTestFinished(() => client.endAsync(true))
    return client
  }
  const listenTo = async (client: MqttClient, filter: string): Promise<Told[]> => {
    const told: Told[] = []
    client.on('message', (topic, payload) => {
      const message: Told = JSON.parse(String(payload))
      expect(topic).toBe(`presence/${message.topic.replaceAll('+', '%2B').replaceAll('#', '%23')}`)
      told.push(message)
    })
    await client.subscribeAsync(filter)
    return told
  }
  const stream = async (query: string): Promise<() => void> => {
    const abort = new AbortController()
    onTestFinished(() => abort.abort())
    const response = await fetch(`${gateway.urls.http}/v1/events?${query}`, { signal: abort.signal })
    expect(response.status).toBe(200)
    return () => abort.abort()
  }
  const at = async (topic: string): Promise<{ count: number; listeners: { device: string; transport: string }[] }> =>
    JSON.parse(await (await fetch(`${gateway.urls.http}/v1/presence?topic=${encodeURIComponent(topic)}`)).text())
  const line = ({ event, device, transport, topic, count }: Told) => `${event} ${device} ${transport} ${topic} ${count}`

  it('has those who listen on any transport, and tells MQTT clients who comes and goes', async () => {
    const watcher = await connect('watcher')
    const told = await listenTo(watcher, 'presence/#')
    const endStream = await stream('topic=news/%23&device=kitchen')
    await eventually(() => told.length === 1)
    const client = await connect('thermometer')
    await client.subscribeAsync(['news/+', '$SYS/broker/uptime'])
    await eventually(() => told.length === 2)
    const poll = fetch(`${gateway.urls.http}/v1/poll?topic=news/eu&device=hall&timeout=20`)
    await eventually(() => told.length === 3)

    expect((await at('news/eu')).listeners.map(({ device, transport }) => `${device} ${transport}`).sort()).toEqual([
      'hall poll',
      'kitchen sse',
      'thermometer mqtt',
    ])
    expect(await at('news/+')).toMatchObject({ count: 1, listeners: [{ device: 'thermometer' }] })

    await watcher.publishAsync('news/eu', 'news')
    expect((await poll).status).toBe(200)
    endStream()
    await client.unsubscribeAsync('news/+')
    await eventually(() => told.length === 6)
    expect(told.map(line).sort()).toEqual([
      'join hall poll news/eu 1',
      'join kitchen sse news/# 1',
      'join thermometer mqtt news/+ 1',
      'leave hall poll news/eu 0',
      'leave kitchen sse news/# 0',
      'leave thermometer mqtt news/+ 0',
    ])
    expect((await at('news/eu')).count).toBe(0)
  })

  it('has somebody who polls again and again there all the time', async () => {
    const told = await listenTo(await connect('watcher'), 'presence/news/#')
    const begin = Date.now()
    let polls = 0
    for (; Date.now() - begin < 2500; polls++) {
      await fetch(`${gateway.urls.http}/v1/poll?topic=news/%23&device=kitchen&timeout=0`)
      expect(await at('news/eu')).toMatchObject({ count: 1, listeners: [{ device: 'kitchen', connections: 0 }] })
    }
    expect(polls).toBeGreaterThan(5)
    await eventually(() => told.length === 2)
    expect(told.map(line)).toEqual(['join kitchen poll news/# 1', 'leave kitchen poll news/# 0'])
  })

  it('tells nothing of the gateway’s own sessions, and of those who listen to presence', async () => {
    const counts = async () => JSON.parse(await (await fetch(`${gateway.urls.http}/v1/presence`)).text())
    expect(await counts()).toEqual({ count: 0, topics: {} })
    const told = await listenTo(await connect('watcher'), 'presence/#')
    const endStream = await stream('topic=presence/%23')
    expect(await counts()).toEqual({ count: 2, topics: { 'presence/#': 2 } })
    endStream()
    await stream('topic=end')
    await eventually(() => told.length > 0)
    expect(told.map(({ topic }) => topic)).toEqual(['end'])
  })
})
