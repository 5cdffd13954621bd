import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { join } from 'node:path'
import { generate, type Packet, parser } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import type { Broker } from '../../../src/broker/broker.js'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import type { Journal } from '../../../src/journal/journal.js'
import { openLevelJournal } from '../../../src/journal/level-journal.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { Connection } from '../../../src/mqtt/connection.js'
import { plain } from '../../../src/mqtt/protocol-profile.js'
import type { ReceivedMessage } from '../../../src/mqtt/publish-packet.js'
import { RetainedReconciler } from '../../../src/sources/mqtt/retained-reconciler.js'
import type { Source } from '../../../src/sources/publisher.js'
import { connect, type Session } from '../../broker/embedded/mqtt-session.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, log, openWithout, refusedVersions, retainedOf, sessionOn, Watched } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

async function mosquitto(): Promise<Broker> {
  const running = await startMosquitto()
  cleanup.add(() => running.stop())
  const broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${running.port}`), log)
  cleanup.add(() => broker.close())
  return broker
}

async function clientOf(broker: Broker): Promise<Session> {
  const client = await connect(broker)
  cleanup.add(() => client.end())
  return client
}

describe.each(['MQTT 5', 'MQTT 3.1.1 as a bridge', 'MQTT 3.1.1'] as const)(
  'with %s, what a broker retains',
  dialect => {
    /** A gateway that can go and come back, in front of a mosquitto. */
    async function gateway(topics = ['#']) {
      const broker = await mosquitto()
      const data = await cleanup.directory()
      const journal = await openLevelJournal({ directory: join(data, 'journal'), bounds, log })
      cleanup.add(() => journal.close())
      const client = await clientOf(broker)
      const start = async (): Promise<Source> => {
        const open = () => openWithout(broker, refusedVersions[dialect])
        const session = await sessionOn(broker, journal, { data, open, config: { topics } })
        cleanup.add(() => session.close())
        await eventually(() => session.connected)
        return session
      }
      return { client, journal, start }
    }

    /** The events that `watched` got, behind which all others have come. */
    const all = async (watched: Watched, session: Source): Promise<string[]> => {
      await eventually(() => watched.events.some(({ topic }) => topic === 'last'))
      await session.publish({ topic: 'end', payload: Buffer.from('end'), qos: 1, retain: false })
      return watched.events.map(({ topic, payload }) => `${topic}=${payload}`)
    }

    it('is known where it changed with QoS 0, came new or was cleared while the gateway was away', async () => {
      const { client, journal, start } = await gateway()
      const first = await start()
      const retain = true
      for (const topic of ['changed', 'cleared', 'same', 'last']) {
        await first.publish({ topic, payload: Buffer.from('on'), qos: 1, retain })
      }
      await first.close()
      await client.publish('changed', 'off', { retain })
      await client.publish('new', 'on', { retain })
      await client.publish('cleared', '', { retain })
      // What is gone is told last.
      await client.publish('last', '', { retain })
      await client.subscribe('answered-behind-all-of-it')
      const watched = new Watched(journal)
      expect(await all(watched, await start())).toEqual(['changed=off', 'new=on', 'cleared=', 'last=', 'end=end'])
      expect(await retainedOf(journal)).toEqual({ changed: 'off', same: 'on', new: 'on' })
    })

    it('comes once beside what it kept for the session, and behind it', async () => {
      const { client, journal, start } = await gateway()
      const first = await start()
      const retain = true
      await first.publish({ topic: 'last', payload: Buffer.from('on'), qos: 1, retain })
      await first.close()
      const kept = Array.from({ length: 200 }, (_, index) => `${index}`)
      for (const payload of kept) await client.publish('state', payload, { qos: 1, retain })
      await client.publish('kept', 'on', { qos: 1, retain })
      await client.publish('state', 'newest', { retain })
      await client.publish('last', '', { retain })
      await client.subscribe('answered-behind-all-of-it')
      const watched = new Watched(journal)
      const got = await all(watched, await start())
      // MQTT 3.1.1 does not tell of what was kept that it is a state, and so that is told once more, in any order.
      const states = dialect === 'MQTT 3.1.1' ? ['kept=on', 'state=newest'] : ['state=newest']
      const before = [...kept.map(payload => `state=${payload}`), 'kept=on']
      expect(got.slice(0, before.length)).toEqual(before)
      expect(got.slice(before.length, -2).sort()).toEqual(states)
      expect(got.slice(-2)).toEqual(['last=', 'end=end'])
      expect(await retainedOf(journal)).toEqual({ state: 'newest', kept: 'on' })
    })

    it('is all known at the first start, once, however much it is and however many filters match it', async () => {
      const { client, journal, start } = await gateway(['a/#', 'a/+', 'end'])
      const count = 3000
      const sent = Array.from({ length: count }, (_, index) =>
        client.publish(`a/${index}`, 'on', { qos: 1, retain: true }),
      )
      await Promise.all(sent)
      const watched = new Watched(journal)
      const session = await start()
      await watched.count(count)
      await session.publish({ topic: 'end', payload: Buffer.from(''), qos: 1, retain: false })
      expect(watched.events.length).toBe(count + 1)
      expect(Object.keys(await retainedOf(journal))).toHaveLength(count)
    })

    it('is not told again over a live message that comes meanwhile', async () => {
      const { client, journal, start } = await gateway()
      const first = await start()
      await first.publish({ topic: 'last', payload: Buffer.from('on'), qos: 1, retain: true })
      await first.close()
      await client.publish('last', '', { retain: true })
      await client.subscribe('answered-behind-it')
      const watched = new Watched(journal)
      const starting = start()
      const sent: string[] = []
      for (let number = 0; !watched.events.some(({ topic }) => topic === 'last'); number++) {
        await client.publish('live', `${number}`, { qos: 1, retain: true })
        sent.push(`live=${number}`)
        await eventually(() => watched.payloads().includes(`${number}`))
        // Somebody who never pauses looks as what was kept does, for some seconds.
        await client.subscribe('pause')
      }
      const got = (await all(watched, await starting)).filter(text => text.startsWith('live='))
      // With the last form, each of the first may be a state that is other than what was known.
      expect(dialect === 'MQTT 3.1.1' ? [...new Set(got)] : got).toEqual(sent)
    })
  },
)

it('a session that a broker has forgotten leaves a hole, as what was published meanwhile is lost', async () => {
  const broker = await mosquitto()
  const journal: Journal = new MemoryJournal({ bounds, log })
  const watched = new Watched(journal)
  const streams: { destroy(): void }[] = []
  const session = await sessionOn(broker, journal, {
    open: async () => {
      const stream = await openWithout(broker, [])
      streams.push(stream)
      return stream
    },
  })
  cleanup.add(() => session.close())
  await session.publish({ topic: 'before', payload: Buffer.from(''), qos: 1, retain: false })
  for (const stream of streams) stream.destroy()
  await eventually(() => !session.connected)
  await eventually(() => session.connected)
  await session.publish({ topic: 'after', payload: Buffer.from(''), qos: 1, retain: false })
  expect(watched.events.map(({ topic }) => topic)).toEqual(['before', '', 'after'])
})

/** A broker that leaves out some of what it retains where it is asked for all. */
async function forgetfulBroker(all: readonly string[], retained: readonly string[]): Promise<number> {
  const server = createServer(socket => {
    const incoming = parser({ protocolVersion: 4 })
    const answer = (packet: Packet) => socket.write(generate(packet))
    const tell = (topic: string) =>
      answer({ cmd: 'publish', topic, payload: Buffer.from('on'), qos: 0, dup: false, retain: true })
    incoming.on('packet', packet => {
      const { cmd, messageId = 0 } = packet
      if (cmd === 'connect') answer({ cmd: 'connack', returnCode: 0, sessionPresent: false })
      if (cmd === 'pingreq') answer({ cmd: 'pingresp' })
      if (cmd === 'unsubscribe') answer({ cmd: 'unsuback', messageId, granted: [] })
      if (cmd !== 'subscribe') return
      const filters = packet.subscriptions.map(({ topic }) => topic)
      answer({ cmd: 'suback', messageId, granted: filters.map(() => 0) })
      for (const topic of filters.includes('#') ? all : filters.filter(filter => retained.includes(filter))) tell(topic)
    })
    socket.on('data', chunk => incoming.parse(chunk)).on('error', () => {})
  }).listen(0, '127.0.0.1')
  cleanup.add(() => server.close())
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

it('what a broker leaves out is asked for by its name before it is taken for gone', async () => {
  const port = await forgetfulBroker(['told'], ['told', 'left-out'])
  const journal = new MemoryJournal({ bounds, log })
  cleanup.add(() => journal.close())
  for (const topic of ['told', 'left-out', 'gone']) {
    await journal.append({ topic, payload: Buffer.from('on'), qos: 0, retain: true })
  }
  const own = { clientId: 'c', clean: true, keepAlive: 0, connectTimeout: 5000, profile: plain }
  const open = async (onMessage: (message: ReceivedMessage) => void) => {
    const connection = await Connection.connect({ ...own, onMessage, stream: connectTcp(port, '127.0.0.1') })
    cleanup.add(() => connection.end())
    return connection
  }
  const missed: string[] = []
  const check = new RetainedReconciler({
    ...{ topics: ['#'], journal, open, inbound: await open(() => {}) },
    onMissed: ({ topic, payload }) => missed.push(`${topic}=${payload}`),
  })
  await check.run()
  expect(missed).toEqual(['gone='])
})
