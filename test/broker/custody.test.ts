import { generate, type Packet } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ownPeer } from '../../src/broker/broker.js'
import { Custody } from '../../src/broker/custody.js'
import { createEmbedded, type EmbeddedBroker } from '../../src/broker/embedded.js'
import { createLog } from '../../src/log.js'
import { eventually, settled } from '../helpers/wait.js'
import { limits } from './limits.js'
import { connect, Session } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

/** The program's own session, which says what it keeps when the test says so. */
async function keeper(broker: EmbeddedBroker, filter: string) {
  const told: string[] = []
  const stream = await broker.open(ownPeer)
  const keep = stream.takeCustody?.({
    lapsed: async () => {
      told.push('lapsed')
    },
    restored: () => told.push('restored'),
    awaited: () => {},
  })
  if (!keep) throw new Error('it takes no custody')
  const session = new Session(stream, { clientId: 'keeper' })
  await session.connected()
  await session.subscribe(filter)
  return { session, keep, told }
}

describe('a message that the program’s own session keeps', () => {
  let broker: EmbeddedBroker
  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, log)
  })
  afterEach(() => broker.close())

  it.each([1, 2] as const)('is acknowledged at QoS %i when it is kept, and not before', async qos => {
    const { session, keep } = await keeper(broker, '#')
    const publisher = await connect(broker)
    let acknowledged = 0
    const published = publisher.publish('a', 'x', { qos }).then(() => acknowledged++)
    await session.next()
    await settled(() => acknowledged)
    expect(acknowledged).toBe(0)
    keep(1)
    await published
    await Promise.all([session.end(), publisher.end()])
  })

  it('holds nothing else up: it reaches its subscribers, and others publish', async () => {
    const { session, keep } = await keeper(broker, 'kept/#')
    const subscriber = await connect(broker)
    await subscriber.subscribe('#', 1)
    const [one, other] = [await connect(broker), await connect(broker)]
    const published = one.publish('kept/1', 'first', { qos: 1 })
    expect(await subscriber.text()).toBe('first')
    await other.publish('elsewhere', 'second', { qos: 1 })
    expect(await subscriber.text()).toBe('second')
    await other.publish('kept/0', 'third')
    expect(await subscriber.text()).toBe('third')
    keep(1)
    await published
    await Promise.all([session, subscriber, one, other].map(client => client.end()))
  })

  it('is acknowledged before what its publisher published later [MQTT-4.6.0-2]', async () => {
    const { session, keep } = await keeper(broker, 'kept/#')
    const { session: publisher } = await connectRaw(broker, { clientId: 'p', clean: true, protocolVersion: 4 })
    const publish = (messageId: number, topic: string): Packet => ({
      cmd: 'publish',
      messageId,
      topic,
      payload: '',
      qos: 1,
      retain: false,
      dup: false,
    })
    publisher.send(publish(1, 'elsewhere'))
    expect(await publisher.next()).toMatchObject({ cmd: 'puback', messageId: 1 })
    // In one read, so that the broker works on all of them.
    const packets = [publish(2, 'kept/1'), publish(3, 'elsewhere'), publish(4, 'kept/2'), publish(5, 'elsewhere')]
    publisher.stream.write(Buffer.concat(packets.map(packet => generate(packet))))
    expect([(await session.next()).topic, (await session.next()).topic]).toEqual(['kept/1', 'kept/2'])
    keep(1)
    expect(await publisher.next()).toMatchObject({ messageId: 2 })
    keep(1)
    for (const messageId of [3, 4, 5]) expect(await publisher.next()).toMatchObject({ cmd: 'puback', messageId })
    await Promise.all([session.end(), publisher.end()])
  })

  it('is acknowledged, and the session told, when its connection is lost', async () => {
    const { session, told } = await keeper(broker, '#')
    const publisher = await connect(broker)
    const published = publisher.publish('a', 'x', { qos: 1 })
    await session.next()
    expect(told).toEqual([])
    session.stream.destroy()
    await published
    expect(told).toEqual(['lapsed'])
    await publisher.publish('a', 'x', { qos: 1 })
    await publisher.end()
  })

  it('nobody but the program itself keeps', async () => {
    const { stream } = await connect(broker)
    expect(stream).not.toHaveProperty('takeCustody')
    stream.destroy()
  })
})

describe('a custody', () => {
  const start = (patience: number) => {
    const told: string[] = []
    const awaited: number[] = []
    let permit: () => void = () => {}
    const custodian = {
      lapsed: () => {
        told.push('lapsed')
        return new Promise<void>(resolve => {
          permit = resolve
        })
      },
      restored: () => told.push('restored'),
      awaited: (count: number) => awaited.push(count),
    }
    const custody = new Custody({ custodian, patience })
    const given: number[] = []
    const publish = (id: number, client = {}): void => {
      custody.begin()
      custody.handOver()
      custody.settle(client, () => given.push(id))
    }
    return { custody, told, awaited, given, publish, permit: () => permit() }
  }

  it('says until which message a publisher waits, and nothing where nobody does', () => {
    const { custody, awaited, publish } = start(1000)
    custody.begin()
    custody.handOver()
    expect(awaited).toEqual([])
    publish(1)
    publish(2)
    expect(awaited).toEqual([2, 3])
    custody.keep(3)
  })

  it('lapses where nothing is kept for too long: after it has said so, all is acknowledged, and at once', async () => {
    const { told, given, publish, permit } = start(20)
    publish(1)
    publish(2)
    await eventually(() => told.length === 1)
    expect(given).toEqual([])
    publish(3)
    permit()
    await eventually(() => given.length === 3)
    publish(4)
    expect([given, told]).toEqual([[1, 2, 3, 4], ['lapsed']])
  })

  it('holds again from the first that is kept on, and says when nothing is loose any more', async () => {
    const { custody, told, given, publish, permit } = start(20)
    publish(1)
    publish(2)
    await eventually(() => told.length === 1)
    permit()
    await eventually(() => given.length === 2)
    custody.keep(1)
    publish(3)
    expect([given, told]).toEqual([[1, 2], ['lapsed']])
    custody.keep(1)
    expect([given, told]).toEqual([
      [1, 2],
      ['lapsed', 'restored'],
    ])
    custody.keep(1)
    expect(given).toEqual([1, 2, 3])
  })

  it('does not lapse as long as something is kept now and then', async () => {
    const { custody, told, given, publish } = start(60)
    for (let id = 0; id < 10; id++) publish(id)
    for (let id = 0; id < 10; id++) {
      await new Promise(resolve => setTimeout(resolve, 20))
      custody.keep(1)
    }
    expect([given.length, told]).toEqual([10, []])
  })
})
