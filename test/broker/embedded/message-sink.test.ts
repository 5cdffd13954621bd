import { generate, type Packet } from 'mqtt-packet'
import { afterAll, afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import type { Broker } from '../../../src/broker/broker.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import type { AcceptedMessage, MessageSink } from '../../../src/broker/embedded/message-sink.js'
import { topicPredicate } from '../../../src/topics/match.js'
import { eventually, settled } from '../../helpers/wait.js'
import { Credentials, enter, startGuarded } from './access-rig.js'
import { limits } from './limits.js'
import { connect, somePeer } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A sink that appends when the test says so. */
class TestSink implements MessageSink {
  readonly messages: AcceptedMessage[] = []
  /** Whether somebody waits, for each of them. */
  readonly awaited: boolean[] = []
  readonly #matches: (topic: string) => boolean
  readonly #release: (() => void)[] = []
  /** It is full when it has so many. */
  room = Number.POSITIVE_INFINITY

  constructor(filters: readonly string[] = ['#']) {
    this.#matches = topicPredicate(filters)
  }

  sizes(): number[] {
    return this.messages.map(({ payload }) => payload.length)
  }

  get isFull(): boolean {
    return this.messages.length >= this.room
  }

  append(message: AcceptedMessage, isAwaited: boolean): Promise<void> | undefined {
    if (!this.#matches(message.topic)) return undefined
    this.messages.push(message)
    this.awaited.push(isAwaited)
    return isAwaited ? new Promise(release => this.#release.push(release)) : undefined
  }

  /** Has appended the first so many of those for which somebody waits. */
  keep(count: number): void {
    for (const release of this.#release.splice(0, count)) release()
  }

  payloads(): string[] {
    return this.messages.map(({ payload }) => String(payload))
  }
}

const publication = (topic: string, more: Partial<Packet & { cmd: 'publish' }> = {}): Packet => ({
  cmd: 'publish',
  topic,
  payload: '',
  qos: 0,
  retain: false,
  dup: false,
  ...more,
})

/** In one read, so that the broker works on all of them at once. */
const together = (packets: readonly Packet[]): Buffer => Buffer.concat(packets.map(packet => generate(packet)))

const own: AcceptedMessage = { topic: 'own', payload: Buffer.from('x'), qos: 1, retain: false }
const never: MessageSink['append'] = () => {
  throw new Error('it was to be called by nobody')
}

describe('a message sink of the embedded broker', () => {
  let broker: EmbeddedBroker
  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, log)
  })
  afterEach(() => broker.close())

  it.each([1, 2] as const)('has a message acknowledged at QoS %i when it is appended, and not before', async qos => {
    const sink = new TestSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'p', clean: true })
    let answers = 0
    const answer = session.send(publication('a', { qos, messageId: 1 })).next()
    answer.then(() => answers++)
    await eventually(() => sink.messages.length === 1)
    await settled(() => answers)
    expect(answers).toBe(0)
    sink.keep(1)
    expect(await answer).toMatchObject({ cmd: qos === 1 ? 'puback' : 'pubrec', messageId: 1 })
    if (qos === 2) {
      expect(await session.send({ cmd: 'pubrel', messageId: 1 }).next()).toMatchObject({ cmd: 'pubcomp', messageId: 1 })
    }
    expect(sink.messages).toHaveLength(1)
    await session.end()
  })

  it('reads the next messages of a client at QoS 1 while it has at most 128 without acknowledgement', async () => {
    const sink = new TestSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'p', clean: true })
    let sent = 0
    const send = (count: number): void => {
      const ids = Array.from({ length: count }, () => ++sent)
      session.stream.write(together(ids.map(messageId => publication('a', { qos: 1, messageId }))))
    }
    for (const count of [64, 64, 64]) {
      send(count)
      await eventually(() => sink.messages.length === sent)
    }
    send(1)
    await settled(() => sink.messages.length)
    expect(sink.messages).toHaveLength(192)
    sink.keep(192)
    await eventually(() => sink.messages.length === 193)
    await session.end()
  })

  it('gets each message once, as it was published, however many subscribers it has', async () => {
    const sink = new TestSink()
    const subscribers = [await connect(broker), await connect(broker), await connect(broker)]
    for (const subscriber of subscribers) await subscriber.subscribe('#', 1)
    const publisher = await connect(broker)
    broker.attach(sink)
    for (const qos of [0, 1, 2] as const) {
      const published = publisher.publish(`t/${qos}`, `${qos}`, { qos, retain: qos === 1 })
      await eventually(() => sink.messages.length === qos + 1)
      sink.keep(1)
      await published
    }
    expect(sink.messages).toEqual([
      { topic: 't/0', payload: Buffer.from('0'), qos: 0, retain: false },
      { topic: 't/1', payload: Buffer.from('1'), qos: 1, retain: true },
      { topic: 't/2', payload: Buffer.from('2'), qos: 2, retain: false },
    ])
    expect(sink.awaited).toEqual([false, true, true])
    await Promise.all([publisher, ...subscribers].map(session => session.end()))
  })

  it.each([0, 1] as const)('gets a will of QoS %i', async qos => {
    const sink = new TestSink()
    broker.attach(sink)
    const will = { topic: 'will', payload: Buffer.from('gone'), qos, retain: true }
    const { session } = await connectRaw(broker, { clientId: 'mortal', clean: true, will })
    session.stream.destroy()
    await eventually(() => sink.messages.length === 1)
    expect(sink.messages).toEqual([will])
  })

  it('gets a message of QoS 2 that is sent twice once; neither is acknowledged before it is appended', async () => {
    const sink = new TestSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'twice', clean: true })
    const answers: (Packet | undefined)[] = []
    const answered = (async () => {
      while (answers.length < 2) answers.push(await session.next())
    })()
    const first = publication('t', { qos: 2, messageId: 1 })
    session.stream.write(together([first, { ...first, dup: true } as Packet]))
    await eventually(() => sink.messages.length > 0)
    await settled(() => answers.length)
    expect(answers).toEqual([])
    sink.keep(1)
    await answered
    expect(answers).toMatchObject(Array(2).fill({ cmd: 'pubrec', messageId: 1 }))
    expect(sink.messages).toHaveLength(1)
    await session.end()
  })

  it('gets what one client publishes at any QoS in one read in its order', async () => {
    const sink = new TestSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'mixed', clean: true })
    const levels = [2, 1, 0, 2, 2, 0, 1, 1, 2, 0] as const
    const packets = levels.map((qos, index) =>
      publication('t', { qos, payload: `${index}`, ...(qos > 0 && { messageId: index + 1 }) }),
    )
    session.stream.write(together(packets))
    await eventually(() => sink.messages.length === levels.length)
    expect(sink.messages.map(({ payload, qos }) => `${payload}: QoS ${qos}`)).toEqual(
      levels.map((qos, index) => `${index}: QoS ${qos}`),
    )
    session.stream.destroy()
  })

  it('holds nothing up but the acknowledgement: the message reaches its subscribers, and others publish', async () => {
    const sink = new TestSink(['kept/#'])
    broker.attach(sink)
    const subscriber = await connect(broker)
    await subscriber.subscribe('#', 1)
    const [one, other] = [await connect(broker), await connect(broker)]
    const published = one.publish('kept/1', 'first', { qos: 1 })
    expect(await subscriber.text()).toBe('first')
    await other.publish('elsewhere', 'second', { qos: 1 })
    expect(await subscriber.text()).toBe('second')
    await other.publish('kept/0', 'third')
    expect(await subscriber.text()).toBe('third')
    // Not even its own publisher.
    await one.publish('elsewhere', 'fourth')
    expect(await subscriber.text()).toBe('fourth')
    sink.keep(1)
    await published
    await Promise.all([subscriber, one, other].map(client => client.end()))
  })

  it('has a message acknowledged before what its publisher published later [MQTT-4.6.0-2]', async () => {
    const sink = new TestSink(['kept/#'])
    broker.attach(sink)
    const { session: publisher } = await connectRaw(broker, { clientId: 'p', clean: true, protocolVersion: 4 })
    const publish = (messageId: number, topic: string): Packet => publication(topic, { qos: 1, messageId })
    publisher.send(publish(1, 'elsewhere'))
    expect(await publisher.next()).toMatchObject({ cmd: 'puback', messageId: 1 })
    publisher.stream.write(
      together([publish(2, 'kept/1'), publish(3, 'elsewhere'), publish(4, 'kept/2'), publish(5, 'elsewhere')]),
    )
    await eventually(() => sink.messages.length === 2)
    expect(sink.messages.map(({ topic }) => topic)).toEqual(['kept/1', 'kept/2'])
    const answers: (number | undefined)[] = []
    const answered = (async () => {
      while (answers.length < 4) answers.push((await publisher.next())?.messageId)
    })()
    await settled(() => answers.length)
    expect(answers).toEqual([])
    sink.keep(1)
    await settled(() => answers.length)
    // Three may be acknowledged by now, and the rest may not.
    expect([[2], [2, 3]]).toContainEqual(answers)
    sink.keep(1)
    await answered
    expect(answers).toEqual([2, 3, 4, 5])
    await publisher.end()
  })

  it('may append a message when its publisher is gone', async () => {
    const sink = new TestSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'hasty', clean: true })
    session.send(publication('a', { qos: 1, messageId: 1 })).stream.destroy()
    await eventually(() => sink.messages.length === 1)
    const other = await connect(broker)
    const published = other.publish('a', 'x', { qos: 1 })
    await eventually(() => sink.messages.length === 2)
    sink.keep(2)
    await published
    await other.end()
  })

  it('gets none of Aedes’ own announcements', async () => {
    const sink = new TestSink(['#', '$SYS/#'])
    broker.attach(sink)
    const client = await connect(broker)
    await client.subscribe('some/#', 1)
    const other = await connect(broker)
    const published = other.publish('some/topic', 'x', { qos: 1 })
    await client.next()
    sink.keep(1)
    await Promise.all([published, client.end()])
    await eventually(() => broker.figures().connected === 1)
    // It comes behind them.
    await other.publish('last', '')
    await eventually(() => sink.messages.some(({ topic }) => topic === 'last'))
    expect(sink.messages.map(({ topic }) => topic).filter(topic => !topic.startsWith('$SYS/broker/'))).toEqual([
      'some/topic',
      'last',
    ])
    await other.end()
  })
})

describe('huge messages on their way to a message sink', () => {
  it('are appended one at a time, at any QoS; messages of other accounts pass, and those of their own keep their order', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits, maxPacketSize: 2 ** 20 }, log)
    onTestFinished(() => broker.close())
    const sink = new TestSink(['t'])
    broker.attach(sink)
    const from = (address: string) => connect({ open: () => broker.open({ ...somePeer, address }) })
    const [one, other, light] = [await from('127.0.0.5'), await from('127.0.0.6'), await from('127.0.0.7')]
    const huge = Buffer.alloc(300_000, 'x')
    one.client.publish('t', huge)
    one.client.publish('t', 'after 0')
    await eventually(() => sink.messages.length === 2)
    other.client.publish('t', huge, { qos: 1 })
    other.client.publish('t', 'after 1')
    for (let index = 0; index < 3; index++) {
      light.client.publish('t', 'light')
      await eventually(() => sink.messages.length === 3 + index)
    }
    expect(sink.sizes()).toEqual([300_000, 7, 5, 5, 5])
    sink.keep(1)
    await eventually(() => sink.messages.length === 7)
    expect(sink.sizes()).toEqual([300_000, 7, 5, 5, 5, 300_000, 7])
    sink.keep(1)
    await Promise.all([one, other, light].map(session => session.end()))
  })
})

describe('a message sink that is full', () => {
  let broker: EmbeddedBroker
  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, log)
  })
  afterEach(() => broker.close())

  /** Resolves when the broker has got all that was sent. */
  const received = (): Promise<void> => settled(() => broker.figures().publishesReceived)
  const from = (address: string): Pick<Broker, 'open'> => ({ open: () => broker.open({ ...somePeer, address }) })
  const publications = (name: string, count: number): Packet[] =>
    Array.from({ length: count }, (_, index) => publication('t', { payload: `${name}${index}` }))

  it('lets messages wait, and gets them in order when there is room', async () => {
    const sink = new TestSink(['t'])
    const { resume } = broker.attach(sink)
    const subscriber = await connect(broker)
    await subscriber.subscribe('#')
    const { session } = await connectRaw(broker, { clientId: 'p', clean: true })
    sink.room = 3
    session.stream.write(together(publications('', 10)))
    await received()
    expect(sink.payloads()).toEqual(['0', '1', '2'])
    expect(subscriber.messages.map(({ payload }) => `${payload}`)).toEqual(['0', '1', '2'])
    sink.room = 5
    resume()
    await received()
    expect(sink.payloads()).toEqual(['0', '1', '2', '3', '4'])
    sink.room = Number.POSITIVE_INFINITY
    resume()
    await eventually(() => sink.messages.length === 10)
    expect(sink.payloads()).toEqual(Array.from({ length: 10 }, (_, index) => `${index}`))
    for (let index = 0; index < 10; index++) expect(await subscriber.text()).toBe(`${index}`)
    await Promise.all([session.end(), subscriber.end()])
  })

  it('acknowledges nothing meanwhile', async () => {
    const sink = new TestSink(['t'])
    const { resume } = broker.attach(sink)
    sink.room = 0
    const { session } = await connectRaw(broker, { clientId: 'p', clean: true })
    let answers = 0
    const answer = session.send(publication('t', { qos: 1, messageId: 1 })).next()
    answer.then(() => answers++)
    await settled(() => answers)
    expect([answers, sink.messages.length]).toEqual([0, 0])
    sink.room = 1
    resume()
    await eventually(() => sink.messages.length === 1)
    sink.keep(1)
    expect(await answer).toMatchObject({ cmd: 'puback', messageId: 1 })
    await session.end()
  })

  it('is asked now and then, and not in each turn of the event loop, while messages wait', async () => {
    let asked = 0
    const sink: MessageSink = {
      get isFull() {
        asked++
        return true
      },
      append: () => undefined,
    }
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'p', clean: true })
    session.stream.write(together(publications('', 10)))
    await received()
    const before = asked
    await received()
    expect(asked - before).toBeLessThan(100)
    session.stream.destroy()
  })

  it('has the broker read no more from a client than what is on its way, and loses nothing of it', async () => {
    const sink = new TestSink(['t'])
    const { resume } = broker.attach(sink)
    sink.room = 0
    const client = await connect(broker)
    const payload = Buffer.alloc(1000, 'x')
    for (let index = 0; index < 20_000; index++) client.client.publish('t', payload)
    await received()
    expect(broker.figures().bytesReceived).toBeLessThan(1_000_000)
    sink.room = Number.POSITIVE_INFINITY
    resume()
    await eventually(() => sink.messages.length === 20_000)
    await client.end()
  })

  it('gets what waits in turns: one message of each network, however many another one has', async () => {
    const sink = new TestSink(['t'])
    const { resume } = broker.attach(sink)
    sink.room = 0
    const { session: flooder } = await connectRaw(from('192.0.2.1'), { clientId: 'a', clean: true })
    flooder.stream.write(together(publications('a', 100)))
    await received()
    const { session: other } = await connectRaw(from('192.0.2.2'), { clientId: 'b', clean: true })
    other.stream.write(together(publications('b', 3)))
    await received()
    const published = broker.publish({ ...own, topic: 't', payload: Buffer.from('c0') }, 'somebody', (...of) =>
      sink.append(...of),
    )
    sink.room = Number.POSITIVE_INFINITY
    resume()
    await eventually(() => sink.messages.length === 104)
    sink.keep(1)
    await published
    const first = sink.payloads().slice(0, 8)
    expect(first.filter(text => text.startsWith('b'))).toEqual(['b0', 'b1', 'b2'])
    expect(first).toContain('c0')
    const ofFlooder = sink.payloads().filter(text => text.startsWith('a'))
    expect(ofFlooder).toEqual(Array.from({ length: 100 }, (_, index) => `a${index}`))
    await Promise.all([flooder.end(), other.end()])
  })
})

describe('a message sink beside rules', () => {
  const credentials = new Credentials()
  afterAll(() => credentials.remove())

  it('gets no message that its publisher may not publish, and none that is the broker’s own', async () => {
    const rules = [{ to: 'authenticated' as const, publish: ['mine/#', '$SYS/#'] }]
    const broker = await startGuarded({ access: { ...credentials.access, rules } })
    const sink = new TestSink(['mine/#', 'theirs/#', '$SYS/fake'])
    broker.attach(sink)
    const alice = await enter(broker, 'alice')
    const topics = ['theirs/1', 'mine/1', '$SYS/fake', 'mine/2']
    alice.stream.write(together(topics.map((topic, index) => publication(topic, { qos: 1, messageId: index + 1 }))))
    await eventually(() => sink.messages.length === 2)
    sink.keep(2)
    const answers = [await alice.next(), await alice.next(), await alice.next(), await alice.next()]
    expect(answers.map(answer => answer?.messageId).sort()).toEqual([1, 2, 3, 4])
    expect(sink.messages.map(({ topic }) => topic)).toEqual(['mine/1', 'mine/2'])
    await alice.end()
    await broker.close()
  })
})

describe('what the program publishes itself', () => {
  let broker: EmbeddedBroker
  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, log)
  })
  afterEach(() => broker.close())

  it.each([0, 1, 2] as const)('at QoS %i is appended once, and published when that is done', async qos => {
    const sink = new TestSink()
    broker.attach(sink)
    const subscriber = await connect(broker)
    await subscriber.subscribe('own', qos)
    const before = broker.figures().publishesReceived
    const appended: AcceptedMessage[] = []
    let release = (): void => {}
    let isPublished = false
    const published = broker.publish({ ...own, qos }, 'alice', message => {
      appended.push(message)
      return new Promise(resolve => {
        release = resolve
      })
    })
    published.then(() => {
      isPublished = true
    })
    expect(await subscriber.next()).toMatchObject({ topic: 'own', payload: own.payload, qos })
    await settled(() => appended.length)
    expect(isPublished).toBe(false)
    release()
    await published
    expect(appended).toEqual([{ ...own, qos }])
    expect(sink.messages).toEqual([])
    expect(broker.figures().publishesReceived - before).toBe(1)
    await subscriber.end()
  })

  it('is published when it is stored, where no sink is attached', async () => {
    const subscriber = await connect(broker)
    await subscriber.subscribe('own', 1)
    await broker.publish({ ...own, retain: true }, undefined, never)
    expect(await subscriber.next()).toMatchObject({ topic: 'own', payload: own.payload, retain: false })
    const late = await connect(broker)
    await late.subscribe('own', 1)
    expect(await late.next()).toMatchObject({ topic: 'own', payload: own.payload, retain: true })
    await Promise.all([subscriber.end(), late.end()])
  })

  it('is not published when the broker is closed', async () => {
    await broker.close()
    await expect(broker.publish(own, undefined, never)).rejects.toThrow()
  })
})

describe('the retained messages of the embedded broker', () => {
  it('are read each once, those that a filter matches', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits }, log)
    const client = await connect(broker)
    const topics = ['a', 'a/b', 'a/b/c', 'b', 'c']
    for (const topic of topics) await client.publish(topic, topic, { qos: 2, retain: true })
    await client.publish('c', '', { qos: 1, retain: true })
    const found: AcceptedMessage[] = []
    for await (const messages of broker.retained(['a/#', 'a/+', '+', 'none'])) found.push(...messages)
    const expected = ['a', 'a/b', 'a/b/c', 'b'].map(topic => ({
      ...{ topic, payload: Buffer.from(topic), qos: 2, retain: true },
    }))
    expect(found.sort((one, other) => (one.topic < other.topic ? -1 : 1))).toEqual(expected)
    await client.end()
    await broker.close()
  })
})
