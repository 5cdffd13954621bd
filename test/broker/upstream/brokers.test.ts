import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { describeBroker } from '../../contracts/broker.js'
import { describeTransports } from '../../contracts/transports.js'
import { type EventClient, type Listen, pushTransports } from '../../helpers/event-clients.js'
import { startTestGateway, type TestGateway } from '../../helpers/gateway.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { type NatsCluster, startNatsCluster } from '../../helpers/nats.js'
import { type RabbitMq, startRabbitMq } from '../../helpers/rabbitmq.js'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })
const options = { balance: 'failover', connectTimeout: 5000, proxyProtocol: 'off' } as const
const startTimeout = 60_000
/** `npm run brokers`: these brokers need a minute for all tests. */
const isComplete = process.env['BROKERS'] === 'all'

/** A gateway in front of a broker, with push of all topics, or those of `topics`. */
function gatewayAt(url: string, topics: readonly string[] = ['#']): Promise<TestGateway> {
  return startTestGateway({ broker: { url }, push: { topics: [...topics] } })
}

async function clientAt(url: string): Promise<mqtt.MqttClient> {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 })
  onTestFinished(() => client.endAsync(true))
  return client
}

/** Publishes again on a new connection while there is no CONNACK or PUBACK: a cluster gives none while it elects a leader. */
async function publishAgain(url: string, topic: string, text: string): Promise<void> {
  for (;;) {
    const options = { reconnectPeriod: 0, connectTimeout: 2000 }
    const client = await mqtt.connectAsync(url, options).catch(() => undefined)
    const published = await Promise.race([
      client?.publishAsync(topic, text, { qos: 1 }).then(() => true) ?? false,
      new Promise<boolean>(resolve => setTimeout(resolve, 2000, false)),
    ])
    await client?.endAsync(true)
    if (published) return
  }
}

async function listenTo(gateway: TestGateway, topic: string): Promise<EventClient> {
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  const client = await (pushTransports['a socket'] as Listen)(gateway.urls, { topics: [topic] })
  onTestFinished(() => client.close())
  return client
}

/** @param topics filters of push with which the broker sends push its retained messages */
function describePush(url: () => string, topics: readonly string[]): void {
  it('gives push the retained messages of before its start', async () => {
    const publisher = await clientAt(url())
    await publisher.publishAsync('state/light', 'on', { qos: 1, retain: true })
    const gateway = await gatewayAt(url(), topics)
    onTestFinished(() => gateway.close())
    const client = await listenTo(gateway, 'state/light')
    await eventually(() => client.events.length > 0)
    expect(client.events).toMatchObject([{ topic: 'state/light', payload: Buffer.from('on'), retained: true }])
    await publisher.publishAsync('state/light', '', { qos: 1, retain: true })
  })

  it('keeps the messages of QoS 1 for push while mqway is away', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-brokers-'))
    onTestFinished(() => rm(data, { recursive: true }))
    const config = { broker: { url: url() }, push: { topics: ['away/#'] }, data }
    const first = await startTestGateway(config)
    const before = await listenTo(first, 'away/x')
    const publisher = await clientAt(url())
    await publisher.publishAsync('away/x', 'before', { qos: 1 })
    await eventually(() => before.events.length === 1 && before.cursor !== undefined)
    await before.close()
    await first.close()
    for (let index = 0; index < 20; index++) await publisher.publishAsync('away/x', String(index), { qos: 1 })
    const second = await startTestGateway(config)
    onTestFinished(() => second.close())
    const after = await (pushTransports['a socket'] as Listen)(second.urls, {
      topics: ['away/x'],
      cursor: before.cursor,
    })
    onTestFinished(() => after.close())
    await eventually(() => after.events.length >= 20)
    expect(after.events.map(({ payload }) => payload.toString())).toEqual(
      Array.from({ length: 20 }, (_, index) => String(index)),
    )
    expect(after.gaps).toEqual([])
  })
}

describeWith('mosquitto', 'push in front of mosquitto', () => {
  let mosquitto: Awaited<ReturnType<typeof startMosquitto>>
  beforeAll(async () => {
    mosquitto = await startMosquitto()
  })
  afterAll(() => mosquitto.stop())
  describeTransports(() => gatewayAt(`mqtt://127.0.0.1:${mosquitto.port}`), {
    retained: true,
    ordered: true,
    once: true,
  })
})

describeWith('nats-server', 'a NATS cluster of three', () => {
  let cluster: NatsCluster
  beforeAll(async () => {
    cluster = await startNatsCluster()
  }, startTimeout)
  afterAll(() => cluster.stop())
  const at = (index: number): string => `mqtt://127.0.0.1:${cluster.ports[index]}`
  if (isComplete) describeTransports(() => gatewayAt(at(1)), { retained: false, ordered: false, once: false })
  describePush(() => at(1), ['#'])

  if (!isComplete) return
  describeBroker(
    async () => {
      const broker = createUpstream({ url: at(0), ...options }, log)
      return { broker, dispose: async () => {} }
    },
    { beKilled: false, versions: [4], qos2: false, sessionOrder: false, system: false },
  )
})

describeWith('nats-server', 'a server of a NATS cluster that ends', () => {
  it.runIf(isComplete)(
    'is replaced by another one for push, without a loss',
    async () => {
      const cluster = await startNatsCluster()
      onTestFinished(() => cluster.stop())
      const at = (index: number): string => `mqtt://127.0.0.1:${cluster.ports[index]}`
      const data = await mkdtemp(join(tmpdir(), 'mqway-brokers-'))
      onTestFinished(() => rm(data, { recursive: true }))
      const gateway = await startTestGateway({ broker: { url: [at(0), at(1)] }, push: { topics: ['failover'] }, data })
      onTestFinished(() => gateway.close())
      const client = await listenTo(gateway, 'failover')
      await publishAgain(at(2), 'failover', 'before')
      await eventually(() => client.events.length > 0)
      await cluster.kill(0)
      const texts = Array.from({ length: 10 }, (_, index) => String(index))
      for (const text of texts) await publishAgain(at(2), 'failover', text)
      const received = (): string[] => [...new Set(client.events.map(({ payload }) => payload.toString()))]
      await eventually(() => received().length > texts.length)
      expect(received()).toEqual(['before', ...texts])
      expect(client.gaps).toEqual([])
    },
    60_000,
  )
})

describeWith('rabbitmq-server', 'RabbitMQ', () => {
  let rabbit: RabbitMq
  beforeAll(async () => {
    rabbit = await startRabbitMq()
  }, startTimeout)
  afterAll(() => rabbit.stop())
  const url = (): string => `mqtt://127.0.0.1:${rabbit.port}`
  if (isComplete) describeTransports(() => gatewayAt(url()), { retained: false, ordered: false, once: true })
  describePush(url, ['state/light'])

  if (!isComplete) return
  describeBroker(
    async () => {
      const broker = createUpstream({ url: url(), ...options }, log)
      return { broker, kill: rabbit.kill, dispose: async () => {} }
    },
    {
      ...{ beKilled: true, versions: [3, 4], refusal: 'close', qos2: false, retained: 'exact', system: false },
      readsToTheEnd: false,
    },
  )
})
