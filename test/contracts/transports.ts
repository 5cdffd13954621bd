import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { allTransports, type EventClient, type Listen, pushTransports } from '../helpers/event-clients.js'
import type { TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

/** What a broker shows push. */
export interface BrokerAbilities {
  /** Whether messages that are published with RETAIN while push is connected become retained messages of push. */
  readonly retained: boolean
  /** Whether all subscribers get messages of different topics and QoS in one order. */
  readonly ordered: boolean
  /** Whether it delivers a message once to a client with several filters that match. */
  readonly once: boolean
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

/** The payloads of each topic, in order. */
function byTopic(client: EventClient): Record<string, string[]> {
  const topics: Record<string, string[]> = {}
  for (const { topic, payload } of client.events) {
    topics[topic] ??= []
    topics[topic].push(payload.toString('latin1'))
  }
  return topics
}

/** Time limit of the start, in milliseconds: some brokers take long. */
const startTimeout = 60_000

/**
 * What every transport does in front of every broker.
 *
 * @param startGateway starts a gateway with push of all topics
 */
export function describeTransports(startGateway: () => Promise<TestGateway>, can: BrokerAbilities): void {
  let gateway: TestGateway
  let names = 0
  /** A first level that no other test uses. */
  const unique = (): string => `t${++names}`
  const start = async (): Promise<TestGateway> => {
    const started = await startGateway()
    await eventually(async () => (await fetch(`${started.urls.http}/readyz`)).status === 200)
    return started
  }
  beforeAll(async () => {
    gateway = await start()
  }, startTimeout)
  afterAll(() => gateway.close())

  describe.each(Object.entries(allTransports))('over %s', (name, listen) => {
    it('comes first what is retained, then what is published, byte for byte and in order', async () => {
      const publisher = await publisherTo(gateway)
      const news = `/${unique()}`
      if (can.retained) {
        await publisher.publishAsync(`${news}/europe/sport`, 'old', { qos: 1, retain: true })
        await publisher.publishAsync(`${news}/europe/politics`, 'not wanted', { qos: 1, retain: true })
        const other = await listenWith(pushTransports['a socket'] as Listen, gateway, [`${news}/#`])
        await eventually(() => other.events.length === 2)
      }

      const client = await listenWith(listen, gateway, [`${news}/+/sport`])
      if (can.retained) await eventually(() => client.events.length === 1)
      for (const payload of payloads) await publisher.publishAsync(`${news}/usa/sport`, payload, { qos: 1 })
      await publisher.publishAsync(`${news}/europe/politics`, 'not wanted either', { qos: 1 })
      await publisher.publishAsync(`${news}/asia/sport`, 'last', { qos: 1 })
      await eventually(() => client.events.some(({ topic }) => topic === `${news}/asia/sport`))
      expect(shown(client)).toEqual([
        ...(can.retained ? [[`${news}/europe/sport`, 'old', true]] : []),
        ...payloads.map(payload => [`${news}/usa/sport`, payload.toString('latin1'), false]),
        [`${news}/asia/sport`, 'last', false],
      ])
    })

    it.runIf(can.once || name in pushTransports)('comes everything once, however many filters match', async () => {
      const publisher = await publisherTo(gateway)
      const a = unique()
      const c = unique()
      const client = await listenWith(listen, gateway, [`${a}/#`, `${a}/+`, `${a}/b`, c])
      for (const topic of [`${a}/b`, a, c, `${a}/b/c`, unique(), `${a}/x`]) {
        await publisher.publishAsync(topic, topic, { qos: 1 })
      }
      await eventually(() => client.events.some(({ topic }) => topic === `${a}/x`))
      expect(client.events.map(({ topic }) => topic)).toEqual([`${a}/b`, a, c, `${a}/b/c`, `${a}/x`])
    })
  })

  describe.each(Object.entries(pushTransports))('over %s', (_name, listen) => {
    it('comes what was missed, from a cursor that any transport gave', async () => {
      const publisher = await publisherTo(gateway)
      const a = unique()
      for (const first of Object.values(pushTransports)) {
        const before = await listenWith(first, gateway, [`${a}/#`])
        await publisher.publishAsync(`${a}/b`, 'seen', { qos: 1 })
        await eventually(() => before.events.some(({ payload }) => payload.toString() === 'seen'))
        await before.close()
        const missed = Array.from({ length: 5 }, (_, index) => `missed ${index}`)
        for (const text of missed) await publisher.publishAsync(`${a}/b`, text, { qos: 1 })
        await publisher.publishAsync(unique(), 'not wanted', { qos: 1 })
        const after = await listenWith(listen, gateway, [`${a}/#`], before.cursor)
        await publisher.publishAsync(`${a}/b`, 'live', { qos: 1 })
        await eventually(() => after.events.some(({ payload }) => payload.toString() === 'live'))
        expect(shown(after).map(([, payload]) => payload)).toEqual([...missed, 'live'])
        expect(after.gaps).toEqual([])
        await after.close()
      }
    })

    it('is said when a cursor is of another journal, and what is retained comes again', async () => {
      const old = await start()
      onTestFinished(() => old.close())
      const publisher = await publisherTo(gateway)
      const a = unique()
      await (await publisherTo(old)).publishAsync(a, 'elsewhere', { qos: 1 })
      const before = await listenWith(listen, old, [a])
      await eventually(() => before.cursor !== undefined)
      await publisher.publishAsync(a, 'state', { qos: 1, retain: can.retained })
      await publisher.publishAsync(a, 'news', { qos: 1 })
      const after = await listenWith(listen, gateway, [a], before.cursor)
      await eventually(() => after.events.some(({ payload }) => payload.toString() === 'news'))
      expect(after.gaps).toEqual(['other-epoch'])
    })
  })

  it('has the same events in the same order on all transports, whoever publishes, and how', async () => {
    const [one, two] = [await publisherTo(gateway), await publisherTo(gateway)]
    const x = unique()
    const clients = await Promise.all(
      Object.values(allTransports).map(listen => listenWith(listen, gateway, [`${x}/#`])),
    )
    const count = 300
    const byHttp = async (index: number): Promise<void> => {
      const url = `${gateway.urls.http}/v1/publish?topic=${x}/http`
      const response = await fetch(url, { method: 'POST', body: `${index}` })
      if (response.status !== 201) throw new Error(`answered ${response.status}`)
    }
    const publish = [
      (index: number) => one.publishAsync(`${x}/one`, `${index}`, { qos: 0 }),
      (index: number) => two.publishAsync(`${x}/two`, `${index}`, { qos: 1 }),
      byHttp,
    ]
    await Promise.all(
      publish.map(async to => {
        for (let index = 0; index < count / publish.length; index++) await to(index)
      }),
    )
    await eventually(() => clients.every(({ events }) => events.length >= count))
    const [mqttClient, first, ...others] = clients as [EventClient, EventClient, ...EventClient[]]
    expect(mqttClient.events).toHaveLength(count)
    expect(byTopic(first)).toEqual(byTopic(mqttClient))
    if (can.ordered) expect(shown(first)).toEqual(shown(mqttClient))
    expect(new Set(first.events.map(({ id }) => id)).size).toBe(count)
    for (const client of others) expect(client.events).toEqual(first.events)
  })
}
