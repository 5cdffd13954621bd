import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { allTransports, type EventClient, type Listen, pushTransports } from '../helpers/event-clients.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

async function start(): Promise<TestGateway> {
  const gateway = await startTestGateway()
  onTestFinished(() => gateway.close())
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  return gateway
}

async function publisherTo(gateway: TestGateway): Promise<mqtt.MqttClient> {
  const client = await mqtt.connectAsync(gateway.urls.mqtt, { reconnectPeriod: 0 })
  onTestFinished(() => client.endAsync(true))
  return client
}

async function listenWith(
  listen: Listen,
  gateway: TestGateway,
  topics: readonly string[],
  cursor?: string,
): Promise<EventClient> {
  const client = await listen(gateway.urls, { topics, cursor })
  onTestFinished(() => client.close())
  return client
}

const shown = ({ events }: EventClient) =>
  events.map(({ topic, payload, retained }) => [topic, payload.toString('latin1'), retained])

/** Bytes that are hard on one encoding or another. */
const payloads = [
  'plain',
  'two\nlines\r\nand\rmore\n',
  'data: fake\n\nid: 7\n\n',
  '\u0000\u0001 \u2028\u2029 \ufeff </script> \\ " \u{1f600}',
  '',
  '{"json": [1, null]}',
].map(text => Buffer.from(text))
payloads.push(Buffer.from([0xff, 0xfe, 0x00, 0x80]), Buffer.from([0xef, 0xbb, 0xbf, 0x41]))

describe.each(Object.entries(allTransports))('over %s', (_name, listen) => {
  it('comes first what is retained, then what is published, byte for byte and in order', async () => {
    const gateway = await start()
    const publisher = await publisherTo(gateway)
    await publisher.publishAsync('/news/europe/sport', 'old', { qos: 1, retain: true })
    await publisher.publishAsync('/news/europe/politics', 'not wanted', { qos: 1, retain: true })
    const other = await listenWith(pushTransports['a socket'] as Listen, gateway, ['/news/#'])
    await eventually(() => other.events.length === 2)

    const client = await listenWith(listen, gateway, ['/news/+/sport'])
    await eventually(() => client.events.length === 1)
    for (const payload of payloads) await publisher.publishAsync('/news/usa/sport', payload, { qos: 1 })
    await publisher.publishAsync('/news/europe/politics', 'not wanted either', { qos: 1 })
    await publisher.publishAsync('/news/asia/sport', 'last', { qos: 1 })
    await eventually(() => client.events.length >= payloads.length + 2)
    expect(shown(client)).toEqual([
      ['/news/europe/sport', 'old', true],
      ...payloads.map(payload => ['/news/usa/sport', payload.toString('latin1'), false]),
      ['/news/asia/sport', 'last', false],
    ])
  })

  it('comes everything once, however many filters match', async () => {
    const gateway = await start()
    const publisher = await publisherTo(gateway)
    const client = await listenWith(listen, gateway, ['a/#', 'a/+', 'a/b', 'c'])
    for (const topic of ['a/b', 'a', 'c', 'a/b/c', 'd', 'a/x']) await publisher.publishAsync(topic, topic, { qos: 1 })
    await eventually(() => client.events.some(({ topic }) => topic === 'a/x'))
    expect(client.events.map(({ topic }) => topic)).toEqual(['a/b', 'a', 'c', 'a/b/c', 'a/x'])
  })
})

describe.each(Object.entries(pushTransports))('over %s', (_name, listen) => {
  it('comes what was missed, from a cursor that any transport gave', async () => {
    const gateway = await start()
    const publisher = await publisherTo(gateway)
    for (const first of Object.values(pushTransports)) {
      const before = await listenWith(first, gateway, ['a/#'])
      await publisher.publishAsync('a/b', 'seen', { qos: 1 })
      await eventually(() => before.events.some(({ payload }) => payload.toString() === 'seen'))
      await before.close()
      for (let i = 0; i < 5; i++) await publisher.publishAsync('a/b', `missed ${i}`, { qos: 1 })
      await publisher.publishAsync('b', 'not wanted', { qos: 1 })
      const after = await listenWith(listen, gateway, ['a/#'], before.cursor)
      await publisher.publishAsync('a/b', 'live', { qos: 1 })
      await eventually(() => after.events.length >= 6)
      expect(shown(after).map(([, payload]) => payload)).toEqual([
        'missed 0',
        'missed 1',
        'missed 2',
        'missed 3',
        'missed 4',
        'live',
      ])
      expect(after.gaps).toEqual([])
      await after.close()
    }
  })

  it('is said when a cursor is of another journal, and what is retained comes again', async () => {
    const [old, gateway] = [await start(), await start()]
    const publisher = await publisherTo(gateway)
    await (await publisherTo(old)).publishAsync('a', 'elsewhere', { qos: 1 })
    const before = await listenWith(listen, old, ['a'])
    await publisher.publishAsync('a', 'state', { qos: 1, retain: true })
    await publisher.publishAsync('a', 'news', { qos: 1 })
    const seen = await listenWith(listen, gateway, ['a'])
    await eventually(() => seen.events.length > 0 && seen.cursor !== undefined)
    const after = await listenWith(listen, gateway, ['a'], before.cursor)
    await eventually(() => after.events.some(({ payload }) => payload.toString() === 'news'))
    expect(after.gaps).toEqual(['other-epoch'])
  })
})

describe('all transports', () => {
  it('have the same events in the same order, whoever publishes, and how', async () => {
    const gateway = await start()
    const [one, two] = [await publisherTo(gateway), await publisherTo(gateway)]
    const clients = await Promise.all(Object.values(allTransports).map(listen => listenWith(listen, gateway, ['x/#'])))
    const count = 300
    const byHttp = async (index: number): Promise<void> => {
      const response = await fetch(`${gateway.urls.http}/v1/publish?topic=x/http`, { method: 'POST', body: `${index}` })
      if (response.status !== 201) throw new Error(`answered ${response.status}`)
    }
    const publish = [
      (index: number) => one.publishAsync('x/one', `${index}`, { qos: 0 }),
      (index: number) => two.publishAsync('x/two', `${index}`, { qos: 1 }),
      byHttp,
    ]
    await Promise.all(
      publish.map(async to => {
        for (let index = 0; index < count / publish.length; index++) await to(index)
      }),
    )
    await eventually(() => clients.every(({ events }) => events.length >= count))
    const [mqttClient, ...others] = clients
    const wanted = mqttClient ? shown(mqttClient) : []
    expect(wanted).toHaveLength(count)
    for (const client of others) {
      expect(shown(client)).toEqual(wanted)
      expect(new Set(client.events.map(({ id }) => id)).size).toBe(count)
    }
    const [first, ...rest] = others
    for (const client of rest) expect(client.events.map(({ id }) => id)).toEqual(first?.events.map(({ id }) => id))
  })
})
