import { afterEach, describe, expect, it } from 'vitest'
import type { Broker } from '../../../src/broker/broker.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { decodeMessageProperties, encodeProperties } from '../../../src/mqtt/properties.js'
import { limits } from '../../broker/embedded/limits.js'
import { connect } from '../../broker/embedded/mqtt-session.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { bounds, Cleanup, log, message, openWithout, refusedVersions, sessionOn, Watched } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

const pairs = [
  ['b', '1'],
  ['a', ''],
  ['b', 'ü'],
] as const

const brokers: Record<string, () => Promise<Broker>> = {
  'the embedded broker': async () => {
    const broker = await createEmbedded({ data: 'none', ...limits }, log)
    cleanup.add(() => broker.close())
    return broker
  },
  mosquitto: async () => {
    const mosquitto = await startMosquitto()
    cleanup.add(() => mosquitto.stop())
    const broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${mosquitto.port}`), log)
    cleanup.add(() => broker.close())
    return broker
  },
}

describe.each(Object.keys(brokers))('a session with %s', name => {
  const start = async (topics = ['#']) => {
    const broker = await (brokers[name] as () => Promise<Broker>)()
    const journal = new MemoryJournal({ bounds, log })
    cleanup.add(() => journal.close())
    const session = await sessionOn(broker, journal, { config: { topics } })
    cleanup.add(() => session.close())
    return { broker, journal, session, watched: new Watched(journal) }
  }

  it('is ready when it is open', async () => {
    const { session } = await start()
    expect(session.connected).toBe(true)
    expect(session.connected).toBe(true)
  })

  it.each([0, 1, 2] as const)('brings what a client publishes at QoS %i to the journal', async qos => {
    const { broker, watched } = await start()
    const client = await connect(broker)
    cleanup.add(() => client.end())
    await client.publish('/news/europe', 'hello', { qos })
    const [event] = await watched.count(1)
    expect(event).toMatchObject({ topic: '/news/europe', payload: Buffer.from('hello') })
  })

  it.each([0, 1, 2] as const)('publishes properties and expiry at QoS %i, and gets them back', async qos => {
    const { session } = await start()
    const properties = encodeProperties({ contentType: 'text/plain', userProperties: pairs })
    const expires = Date.now() + 60_000
    const event = await session.publish(message('t', 'x', { qos, properties, expires }))
    expect(event?.properties && decodeMessageProperties(event.properties)).toEqual({
      contentType: 'text/plain',
      userProperties: pairs,
    })
    expect(Math.abs((event?.expires ?? 0) - expires)).toBeLessThanOrEqual(1000)
    const later = await session.publish(message('t', 'y', { qos, retain: true }))
    expect([later?.properties, later?.expires]).toEqual([undefined, undefined])
  })

  it.each([0, 1, 2] as const)('publishes at QoS %i, and tells the event that it became', async qos => {
    const { session, watched } = await start()
    const event = await session.publish(message('/news', 'hello', { qos }))
    expect(event).toEqual((await watched.count(1))[0])
    expect(event).toMatchObject({ topic: '/news', payload: Buffer.from('hello'), sequence: 1 })
  })

  it.each([true, false])('knows of a live message whether it is retained: %s', async retain => {
    const { broker, session, journal } = await start()
    await session.publish(message('ours', '1', { retain }))
    const client = await connect(broker)
    cleanup.add(() => client.end())
    const watched = new Watched(journal)
    await client.publish('theirs', '2', { qos: 1, retain })
    await watched.count(1)
    const retained = []
    for await (const events of journal.retained(['#'], { after: 0, through: journal.head })) retained.push(...events)
    expect(retained.map(({ topic }) => topic).sort()).toEqual(retain ? ['ours', 'theirs'] : [])
  })

  it('publishes what it is not subscribed to, and has no event for it', async () => {
    const { broker, session, watched } = await start(['news/#'])
    const client = await connect(broker)
    cleanup.add(() => client.end())
    await client.subscribe('other', 1)
    expect(await session.publish(message('other', 'x'))).toBeUndefined()
    expect(await client.next()).toMatchObject({ topic: 'other', payload: Buffer.from('x') })
    expect(watched.events).toEqual([])
  })

  it.each(['', 'a/+', '#', '$SYS/broker/version', '$SYS', 'a\0b', '$share/a/b', '\ud800'])(
    'refuses to publish to %j',
    async topic => {
      const { session } = await start()
      await expect(session.publish(message(topic, 'x'))).rejects.toMatchObject({ reason: 'topic-refused' })
    },
  )

  // Beyond 1000 of QoS 2, Aedes ends a connection, and beyond 1020 mosquitto drops them.
  it.each([0, 1, 2] as const)('keeps 1500 publications of QoS %i apart that are under way, in order', async qos => {
    const { session, watched } = await start()
    const count = 1500
    const events = await Promise.all(
      Array.from({ length: count }, (_, index) =>
        session.publish(message(`t/${index % 7}`, String(index % 10), { qos })),
      ),
    )
    expect(events.map(event => event?.sequence)).toEqual(Array.from({ length: count }, (_, index) => index + 1))
    expect(watched.payloads()).toEqual(Array.from({ length: count }, (_, index) => String(index % 10)))
  })
})

describe.each(Object.keys(brokers))('a session with %s that is closed', name => {
  it.each([0, 1, 2] as const)('answers what was published with QoS %i before', async qos => {
    for (const topics of [['#'], ['other/#']]) {
      const broker = await (brokers[name] as () => Promise<Broker>)()
      const journal = new MemoryJournal({ bounds, log })
      const session = await sessionOn(broker, journal, { config: { topics } })
      const events = Array.from({ length: 200 }, (_, index) => session.publish(message('t', `${index}`, { qos })))
      await session.close()
      const published = (await Promise.all(events)).map(event => event?.sequence)
      expect(published).toEqual(published.map((_, index) => (topics[0] === '#' ? index + 1 : undefined)))
      await expect(session.publish(message('t', 'late'))).rejects.toMatchObject({ reason: 'broker-away' })
      await journal.close()
    }
  })
})

describe('a session with a broker elsewhere', () => {
  it('that speaks no MQTT 5 takes MQTT 3.1.1, and knows what is retained all the same', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits }, log)
    cleanup.add(() => broker.close())
    const journal = new MemoryJournal({ bounds, log })
    const session = await sessionOn(broker, journal, { asUpstream: true })
    cleanup.add(() => session.close())
    expect(session.connected).toBe(true)
    await session.publish(message('state', 'on', { retain: true }))
    const retained = []
    for await (const events of journal.retained(['#'], { after: 0, through: journal.head })) retained.push(...events)
    expect(retained).toMatchObject([{ topic: 'state' }])
  })

  it('that takes no bridges either takes plain MQTT 3.1.1, and knows of its own messages what is retained', async () => {
    const embedded = await createEmbedded({ data: 'none', ...limits }, log)
    cleanup.add(() => embedded.close())
    const journal = new MemoryJournal({ bounds, log })
    const session = await sessionOn(embedded, journal, {
      asUpstream: true,
      open: () => openWithout(embedded, refusedVersions['MQTT 3.1.1']),
    })
    cleanup.add(() => session.close())
    expect(session.connected).toBe(true)
    await session.publish(message('state', 'on', { retain: true }))
    const retained = []
    for await (const events of journal.retained(['#'], { after: 0, through: journal.head })) retained.push(...events)
    expect(retained).toMatchObject([{ topic: 'state' }])
  })
})
