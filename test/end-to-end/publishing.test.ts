import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startTestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

describe('a message that a body may have, and a packet of the built-in broker may not', () => {
  it('is refused by the limit’s name, and nobody else notices', async () => {
    const gateway = await startTestGateway({ embedded: { maxPacketSize: '64KiB' }, limits: { bodySize: '1MiB' } })
    onTestFinished(() => gateway.close())
    const listener = await mqtt.connectAsync(gateway.urls.mqtt)
    onTestFinished(() => listener.endAsync(true))
    const sizes: number[] = []
    const seen = new Promise<void>(resolve => {
      listener.on('message', (_topic, payload) => {
        if (sizes.push(payload.length) === 3) resolve()
      })
    })
    await listener.subscribeAsync('news', { qos: 1 })
    const publish = async (size: number) => {
      const url = `${gateway.urls.http}/v1/publish?topic=news`
      const answer = await fetch(url, { method: 'POST', body: Buffer.alloc(size) })
      return { status: answer.status, body: await answer.json() }
    }
    const largest = 64 * 1024 - 'news'.length - 9
    const refused = {
      status: 413,
      body: {
        reason: 'body-too-large',
        detail: expect.stringContaining('packets of at most 65536 bytes (embedded.maxPacketSize)'),
      },
    }
    const answers = await Promise.all([1, largest + 1, largest, 1_000_000, 2].map(publish))
    const published = { status: 201 }
    expect(answers).toMatchObject([published, refused, published, refused, published])
    await seen
    expect(sizes.sort((a, b) => a - b)).toEqual([1, 2, largest])
  })
})

describe('properties of MQTT 5', () => {
  const given = {
    contentType: 'text/plain',
    responseTopic: 'answers/1',
    correlationData: Buffer.from([0, 255]),
    userProperties: { a: ['1', '2'], b: '' },
  }
  const shown = {
    contentType: 'text/plain',
    responseTopic: 'answers/1',
    correlationData: 'AP8=',
    userProperties: [
      ['a', '1'],
      ['a', '2'],
      ['b', ''],
    ],
  }

  it('go from a client of MQTT to events, and from HTTP to a client of MQTT, also through the disk', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-properties-'))
    onTestFinished(() => rm(data, { recursive: true, force: true }))
    const first = await startTestGateway({ data, https: { port: 'off' } })
    onTestFinished(() => first.close())
    const publisher = await mqtt.connectAsync(first.urls.mqtt, { protocolVersion: 5 })
    const properties = { ...given, messageExpiryInterval: 600 }
    await publisher.publishAsync('t/mqtt', 'x', { qos: 1, retain: true, properties })
    await publisher.endAsync()
    const body = JSON.stringify({ topic: 't/http', payload: 'x', retain: true, expires: '10m', ...shown })
    expect((await fetch(`${first.urls.http}/v1/publish`, { method: 'POST', body })).status).toBe(201)
    await first.close()

    const next = await startTestGateway({ data, https: { port: 'off' } })
    onTestFinished(() => next.close())
    const poll = await fetch(`${next.urls.http}/v1/poll?topic=t/%2B&timeout=0`)
    const { events } = (await poll.json()) as { events: { topic: string; expires: string }[] }
    const sorted = events.sort((one, other) => one.topic.localeCompare(other.topic))
    expect(sorted).toMatchObject([
      { topic: 't/http', retained: true, ...shown },
      { topic: 't/mqtt', retained: true, ...shown },
    ])
    for (const { expires } of sorted) expect(Math.abs(Date.parse(expires) - Date.now() - 600_000)).toBeLessThan(60_000)
    const subscriber = await mqtt.connectAsync(next.urls.mqtt, { protocolVersion: 5 })
    onTestFinished(() => subscriber.endAsync(true))
    const got = new Map<string, unknown>()
    subscriber.on('message', (topic, _payload, packet) => got.set(topic, packet.properties))
    await subscriber.subscribeAsync('t/+')
    await eventually(() => got.size === 2)
    for (const topic of ['t/http', 't/mqtt']) {
      expect(got.get(topic)).toMatchObject({ contentType: 'text/plain', userProperties: { a: ['1', '2'], b: '' } })
      const { messageExpiryInterval } = got.get(topic) as { messageExpiryInterval: number }
      expect(messageExpiryInterval).toBeGreaterThan(500)
      expect(messageExpiryInterval).toBeLessThanOrEqual(600)
    }
  })
})
