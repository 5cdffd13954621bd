import { once } from 'node:events'
import { generate, type IConnectPacket } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Broker } from '../../src/broker/broker.js'
import { connect, type Session, somePeer } from '../broker/embedded/mqtt-session.js'

/** One broker under test. */
export interface BrokerUnderTest {
  readonly broker: Broker
  /** Ends the program that the broker is, without warning; left out where it is this program. */
  readonly kill?: () => Promise<void>
  /** Releases what the test made for it. */
  readonly dispose: () => Promise<void>
}

/** In what brokers differ. Left out: as mosquitto. */
export interface BrokerAbilities {
  /** Whether it can die while the gateway lives. */
  readonly beKilled: boolean
  /** Protocol levels. */
  readonly versions?: readonly (3 | 4 | 5)[]
  /** How it refuses MQTT 5, if it does. */
  readonly refusal?: 'connack' | 'close'
  /** Whether it delivers at QoS 2. */
  readonly qos2?: boolean
  /** The retained messages that a subscription gets: of all filters, or only of filters without wildcards. */
  readonly retained?: 'all' | 'exact'
  /** Whether it keeps the order of a session's messages over several subscriptions. */
  readonly sessionOrder?: boolean
  /** Whether it has `$SYS/broker`. */
  readonly system?: boolean
  /** Whether it reads what a client wrote before it closed its side. */
  readonly readsToTheEnd?: boolean
}

/** Time limit of a broker's start, in milliseconds. */
const startTimeout = 60_000

const asMosquitto = {
  versions: [3, 4, 5],
  refusal: 'connack',
  qos2: true,
  retained: 'all',
  sessionOrder: true,
  system: true,
  readsToTheEnd: true,
} as const

/** What every `Broker` does. */
export function describeBroker(start: () => Promise<BrokerUnderTest>, abilities: BrokerAbilities): void {
  const can = { ...asMosquitto, ...abilities }
  const highestQos = can.qos2 ? 2 : 1
  let subject: BrokerUnderTest
  let broker: Broker
  const sessions: Session[] = []
  const client = async (options: Parameters<typeof connect>[1] = {}): Promise<Session> => {
    const session = await connect(broker, options)
    sessions.push(session)
    return session
  }
  let names = 0
  /** A name that no other test uses, because they share the broker. */
  const unique = (): string => `t${++names}`

  beforeAll(async () => {
    subject = await start()
    broker = subject.broker
  }, startTimeout)
  afterAll(async () => {
    await Promise.all(sessions.map(session => session.end()))
    await broker.close()
    await subject.dispose()
  })

  for (const qos of ([0, 1, 2] as const).slice(0, highestQos + 1)) {
    it(`carries a message at QoS ${qos} from one client to another`, async () => {
      const topic = `/${unique()}/europe/sport`
      const subscriber = await client()
      const publisher = await client()
      await subscriber.subscribe(topic, qos)
      await publisher.publish(topic, 'news', { qos })
      expect(await subscriber.next()).toMatchObject({ topic, payload: Buffer.from('news'), qos, retain: false })
    })
  }

  it('keeps the order of a thousand messages of one publisher', async () => {
    const topic = unique()
    const [subscriber, publisher] = [await client(), await client()]
    await subscriber.subscribe(topic, 1)
    const expected = Array.from({ length: 1000 }, (_, index) => String(index))
    const published = expected.map(text => publisher.publish(topic, text, { qos: 1, retain: Number(text) % 7 === 0 }))
    const received: string[] = []
    while (received.length < 1000) received.push(await subscriber.text())
    await Promise.all(published)
    expect(received).toEqual(expected)
  })

  it('matches + with one level, # with the rest, and tells a leading slash apart', async () => {
    const name = unique()
    const wanted = [`/${name}/+/sport`, `/${name}/#`, `${name}/#`, `+/${name}/end`]
    const subscribers = await Promise.all(wanted.map(() => client()))
    await Promise.all(subscribers.map((session, index) => session.subscribe(wanted[index] ?? '', 1)))
    const publisher = await client()
    for (const topic of [`/${name}/a/sport`, `/${name}/a/b/sport`, `/${name}`, `${name}/a/sport`, `/${name}/end`]) {
      await publisher.publish(topic, topic, { qos: 1 })
    }
    const last = `/${name}//sport`
    await publisher.publish(last, last, { qos: 1 })
    await publisher.publish(`${name}/done`, 'done', { qos: 1 })
    const [plus, rest, bare, slash] = subscribers
    expect([await plus?.text(), await plus?.text()]).toEqual([`/${name}/a/sport`, last])
    const all = [`/${name}/a/sport`, `/${name}/a/b/sport`, `/${name}`, `/${name}/end`, last]
    for (const topic of all) expect(await rest?.text()).toBe(topic)
    expect([await bare?.text(), await bare?.text()]).toEqual([`${name}/a/sport`, 'done'])
    expect(await slash?.text()).toBe(`/${name}/end`)
  })

  it('hands a retained message to those who subscribe later, by any filter, until it is deleted', async () => {
    const topic = `/${unique()}/status`
    const publisher = await client()
    await publisher.publish(topic, 'up', { qos: 1, retain: true })
    const wildcards = can.retained === 'all' ? ['+', '#'] : []
    for (const filter of [topic, ...wildcards.map(wildcard => topic.replace('status', wildcard))]) {
      const subscriber = await client()
      await subscriber.subscribe(filter, 1)
      expect(await subscriber.next()).toMatchObject({ topic, payload: Buffer.from('up'), qos: 1, retain: true })
    }
    await publisher.publish(topic, '', { qos: 1, retain: true })
    const subscriber = await client()
    await subscriber.subscribe(topic, 1)
    await publisher.publish(topic, 'live', { qos: 1 })
    expect(await subscriber.next()).toMatchObject({ payload: Buffer.from('live'), retain: false })
  })

  it('hands over a retained message of 10 MB unchanged', async () => {
    const topic = unique()
    const payload = Buffer.alloc(10_000_000, 'The quick brown fox. ')
    const publisher = await client()
    await publisher.publish(topic, payload, { qos: 1, retain: true })
    const subscriber = await client()
    await subscriber.subscribe(topic)
    expect(payload.equals((await subscriber.next()).payload)).toBe(true)
    await publisher.publish(topic, '', { qos: 1, retain: true })
  })

  it('lowers the QoS of a message to that of the subscription, also a retained one', async () => {
    const topic = `/${unique()}/x`
    const [subscriber, publisher] = [await client(), await client()]
    await publisher.publish(topic, 'retained', { qos: highestQos, retain: true })
    await subscriber.subscribe(can.retained === 'all' ? topic.replace('x', '#') : topic, 0)
    expect(await subscriber.next()).toMatchObject({ payload: Buffer.from('retained'), qos: 0 })
    await publisher.publish(topic, 'live', { qos: highestQos })
    expect(await subscriber.next()).toMatchObject({ payload: Buffer.from('live'), qos: 0 })
  })

  it.each(['destroyed', 'ended'] as const)('publishes the will of a client whose stream is %s', async how => {
    const topic = unique()
    const watcher = await client()
    await watcher.subscribe(topic, 1)
    const stream = await broker.open(somePeer)
    stream.write(
      generate(connectPacket(unique(), { will: { topic, payload: Buffer.from('gone'), qos: 1, retain: false } })),
    )
    await once(stream, 'data')
    if (how === 'destroyed') stream.destroy()
    else stream.end()
    expect(await watcher.text()).toBe('gone')
    stream.destroy()
  })

  it('keeps the messages of a session that is away, in order, over overlapping subscriptions', async () => {
    const name = unique()
    const options = { clientId: `${name}-session`, clean: false }
    const first = await client(options)
    await first.subscribe(`${name}/#`, 1)
    await first.subscribe(`${name}/b/+`, highestQos)
    await first.end()
    const publisher = await client()
    for (const topic of [`${name}/a`, `${name}/b/c`, `${name}/b/d`, `${name}/e`]) {
      await publisher.publish(topic, topic, { qos: 1 })
      await publisher.publish(topic, 'forgotten', { qos: 0 })
    }
    const second = await client(options)
    const topics = new Set<string>()
    while (topics.size < 4) {
      const { topic, payload } = await second.next()
      if (payload.toString() !== 'forgotten') topics.add(topic)
    }
    const inOrder = [`${name}/a`, `${name}/b/c`, `${name}/b/d`, `${name}/e`]
    expect(can.sessionOrder ? [...topics] : [...topics].sort()).toEqual(inOrder)
    await second.publish(`${name}/a`, 'now', { qos: 1 })
    while ((await second.text()) !== 'now');
    await second.end()
    await (await client({ ...options, clean: true })).end()
  })

  it.runIf(can.system)('tells about itself under $SYS, which # does not include', async () => {
    const [everything, system] = [await client(), await client()]
    await everything.subscribe('#', 0)
    await system.subscribe('$SYS/broker/#', 0)
    const topics = new Set<string>()
    while (!topics.has('$SYS/broker/version') || !topics.has('$SYS/broker/uptime'))
      topics.add((await system.next()).topic)
    await everything.publish(unique(), 'end', { qos: 1 })
    for (;;) {
      const { topic, payload } = await everything.next()
      expect(topic).not.toMatch(/^\$/)
      if (payload.toString() === 'end') break
    }
  })

  it.each(can.versions.filter(version => version < 5))(
    'speaks MQTT protocol level %d, with a client id of any length',
    async protocolVersion => {
      const topic = unique()
      const session = await client({ protocolVersion, clientId: `${'long-'.repeat(20)}${topic}` })
      await session.subscribe(topic, 1)
      await session.publish(topic, 'hello', { qos: 1 })
      expect(await session.text()).toBe('hello')
    },
  )

  if (can.versions.some(version => version === 5)) {
    it('speaks MQTT 5', async () => {
      const topic = unique()
      const session = await client({ protocolVersion: 5 })
      await session.subscribe(topic, 1)
      await session.publish(topic, 'hello', { qos: 1 })
      expect(await session.text()).toBe('hello')
    })
  } else {
    it('refuses MQTT 5, and then ends the stream', async () => {
      expect(await answerTo(generate(connectPacket(unique(), { protocolVersion: 5 })))).toEqual(
        Buffer.from(can.refusal === 'connack' ? [0x20, 2, 0, 1] : []),
      )
    })
  }

  it('answers a session without a client id with "identifier rejected", and then ends the stream', async () => {
    const connectWithoutId = Buffer.from([0x10, 12, 0, 4, ...Buffer.from('MQTT'), 4, 0, 0, 60, 0, 0])
    expect(await answerTo(connectWithoutId)).toEqual(Buffer.from([0x20, 2, 0, 2]))
  })

  it.runIf(can.readsToTheEnd)(
    'takes all that a client wrote before it ended its side, though it waited for no answer',
    async () => {
      const topic = unique()
      const watcher = await client()
      await watcher.subscribe(topic, 1)
      const stream = await broker.open(somePeer)
      // mosquitto closes with the client's last bytes unread, which may reset the connection.
      const over = new Promise(resolve => stream.once('end', resolve).once('error', resolve))
      stream
        .resume()
        .end(
          Buffer.concat([
            generate(connectPacket(unique())),
            generate({ cmd: 'publish', topic, payload: 'last words', qos: 0, dup: false, retain: false }),
            generate({ cmd: 'disconnect' }),
          ]),
        )
      expect(await watcher.text()).toBe('last words')
      await over
      stream.destroy()
    },
  )

  describe('in the end', () => {
    it('closes its streams when it is closed, twice without harm, and opens no more', async () => {
      const subject = await start()
      const session = await connect(subject.broker)
      const closed = once(session.stream, 'close')
      const silent = await subject.broker.open(somePeer)
      silent.on('error', () => {}).resume()
      const silentClosed = once(silent, 'close')
      await Promise.all([subject.broker.close(), subject.broker.close()])
      silent.end()
      await Promise.all([closed, silentClosed])
      await session.end()
      await expect(subject.broker.open(somePeer)).rejects.toMatchObject({ reason: 'shutting-down' })
      await subject.dispose()
    })

    if (can.beKilled) {
      it('ends its streams when it is killed', async () => {
        const subject = await start()
        const session = await connect(subject.broker)
        const closed = once(session.stream, 'close')
        await subject.kill?.()
        await closed
        await expect(subject.broker.open(somePeer)).rejects.toMatchObject({ reason: 'broker-refused' })
        await session.end()
        await subject.broker.close()
        await subject.dispose()
      })
    }
  })

  /** All that the broker says to `bytes` until it ends the stream. */
  async function answerTo(bytes: Buffer): Promise<Buffer> {
    const stream = await broker.open(somePeer)
    stream.write(bytes)
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk)
    return Buffer.concat(chunks)
  }
}

function connectPacket(clientId: string, more: Partial<IConnectPacket> = {}): IConnectPacket {
  return { cmd: 'connect', clientId, clean: true, keepalive: 60, ...more }
}
