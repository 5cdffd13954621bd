import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import type { Broker } from '../../src/broker/broker.js'
import { createEmbedded } from '../../src/broker/embedded.js'
import { createUpstream } from '../../src/broker/upstream.js'
import { upstreamAt } from '../../src/config/schema.js'
import { type Event, isHole, type Message } from '../../src/push/event.js'
import { openLevelJournal } from '../../src/push/journal/level.js'
import { MemoryJournal } from '../../src/push/journal/memory.js'
import { type Journal, JournalRefusal, type Urgency } from '../../src/push/journal.js'
import { limits } from '../broker/limits.js'
import { connect } from '../broker/mqtt-session.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { run } from '../helpers/processes.js'
import { eventually } from '../helpers/wait.js'
import { bounds, Cleanup, log, message, retainedOf, sessionOn, Watched } from './session-rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

async function levelJournal(): Promise<{ journal: Journal; data: string }> {
  const data = await cleanup.directory()
  const journal = await openLevelJournal({ directory: join(data, 'journal'), bounds, log })
  cleanup.add(() => journal.close())
  return { journal, data }
}

/** A mosquitto that can be killed and started again with what it kept; a broker that is wherever it is. */
class Mortal {
  mosquitto: Mosquitto | undefined
  broker: Broker | undefined

  async start(directory: string): Promise<void> {
    const config = ['allow_anonymous true', 'persistence true', `persistence_location ${directory}/`]
    this.mosquitto = await startMosquitto({ kind: 'tcp' }, [
      ...config,
      'autosave_on_changes true',
      'autosave_interval 1',
    ])
    this.broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${this.mosquitto.port}`), log)
  }

  open: Broker['open'] = peer => {
    if (!this.broker) return Promise.reject(new Error('it is not there'))
    return this.broker.open(peer)
  }
}

async function mortal(): Promise<{ subject: Mortal; broker: Broker; directory: string }> {
  const subject = new Mortal()
  const directory = await cleanup.directory()
  await subject.start(directory)
  cleanup.add(() => subject.mosquitto?.stop())
  const broker: Broker = { name: 'mortal', open: subject.open, close: async () => {} }
  return { subject, broker, directory }
}

describe('a broker that is away', () => {
  it('does not fail the start: it is tried until it is there', async () => {
    const subject = new Mortal()
    const directory = await cleanup.directory()
    const { journal, data } = await levelJournal()
    const broker: Broker = { name: 'mortal', open: subject.open, close: async () => {} }
    const states: boolean[] = []
    const session = await sessionOn(broker, journal, { data, onStateChange: ready => states.push(ready) })
    cleanup.add(() => session.close())
    expect(session.ready).toBe(false)
    await expect(session.publish(message('a', 'x'))).rejects.toMatchObject({ reason: 'broker-away', httpStatus: 503 })
    await subject.start(directory)
    cleanup.add(() => subject.mosquitto?.stop())
    await eventually(() => session.ready)
    expect(await session.publish(message('a', 'x'))).toMatchObject({ topic: 'a' })
    expect(states).toEqual([true])
  })

  it('that is killed and comes back brings what it kept; publishing is refused meanwhile', async () => {
    const { subject, broker, directory } = await mortal()
    const { journal, data } = await levelJournal()
    const watched = new Watched(journal)
    const states: boolean[] = []
    const session = await sessionOn(broker, journal, { data, onStateChange: ready => states.push(ready) })
    cleanup.add(() => session.close())
    await session.publish(message('state', 'on', { retain: true }))
    // It writes down at once what has changed.
    await session.publish(message('before', '1'))
    await subject.mosquitto?.kill()
    await eventually(() => !session.ready)
    await expect(session.publish(message('a', 'x'))).rejects.toMatchObject({ reason: 'broker-away' })
    await subject.start(directory)
    const client = await connect(broker)
    cleanup.add(() => client.end())
    await client.publish('meanwhile', '2', { qos: 1 })
    await eventually(() => session.ready)
    await session.publish(message('after', '3'))
    // What it had not yet written down as acknowledged, it sends again.
    expect([...new Set(watched.payloads())]).toEqual(['on', '1', '2', '3'])
    expect(states).toEqual([true, false, true])
  })

  it('keeps what comes while the gateway is away', async () => {
    const { broker } = await mortal()
    const { journal, data } = await levelJournal()
    const watched = new Watched(journal)
    const first = await sessionOn(broker, journal, { data })
    await first.publish(message('state', 'on', { retain: true }))
    await first.close()
    expect(first.ready).toBe(false)
    const client = await connect(broker)
    cleanup.add(() => client.end())
    for (let index = 0; index < 100; index++) await client.publish('away', String(index), { qos: 1 })
    await client.publish('state', 'off', { qos: 1, retain: true })
    const second = await sessionOn(broker, journal, { data })
    cleanup.add(() => second.close())
    await watched.count(102)
    await second.publish(message('end', 'end'))
    expect(watched.payloads()).toEqual(['on', ...Array.from({ length: 100 }, (_, index) => `${index}`), 'off', 'end'])
    expect(await retainedOf(journal)).toEqual({ state: 'off' })
  })

  it('that forgot the session tells what is retained: only what is other than the journal’s becomes an event', async () => {
    const { broker } = await mortal()
    const { journal, data } = await levelJournal()
    const first = await sessionOn(broker, journal, { data, config: { clientId: 'one' } })
    await first.publish(message('same', 'on', { retain: true }))
    await first.publish(message('changed', 'on', { retain: true }))
    await first.close()
    const client = await connect(broker)
    cleanup.add(() => client.end())
    await client.publish('changed', 'off', { qos: 1, retain: true })
    await client.publish('new', 'on', { qos: 1, retain: true })
    const watched = new Watched(journal)
    const second = await sessionOn(broker, journal, { data, config: { clientId: 'two' } })
    cleanup.add(() => second.close())
    // The first is the hole: what was published meanwhile and is not retained was for the session that is lost.
    await watched.count(3)
    await second.publish(message('end', 'end'))
    const topics = watched.events.map(({ topic }) => topic)
    expect(topics.sort()).toEqual(['', 'changed', 'end', 'new'])
    expect(await retainedOf(journal)).toEqual({ same: 'on', changed: 'off', new: 'on' })
  })

  it('is told when the topics are others after a restart', async () => {
    const { broker } = await mortal()
    const { journal, data } = await levelJournal()
    const first = await sessionOn(broker, journal, { data, config: { topics: ['a/#', 'b'] } })
    await first.close()
    const second = await sessionOn(broker, journal, { data, config: { topics: ['b', 'c'] } })
    cleanup.add(() => second.close())
    const watched = new Watched(journal)
    const client = await connect(broker)
    cleanup.add(() => client.end())
    for (const topic of ['a/x', 'b', 'c']) await client.publish(topic, topic, { qos: 1 })
    await watched.count(2)
    expect(watched.payloads()).toEqual(['b', 'c'])
  })
})

/** A journal that refuses as the test says. */
class Balking extends MemoryJournal {
  refuse: 'unavailable' | 'busy' | undefined
  /** How often it has refused. */
  refused = 0

  override append(appended: Message, urgency?: Urgency): Promise<Event> {
    if (!this.refuse) return super.append(appended, urgency)
    this.refused++
    return Promise.reject(new JournalRefusal(this.refuse))
  }
}

/** So that a test need not wait for as long as publishers do, in milliseconds. */
const ownPatience = 500

/** A session with the embedded broker and a journal that balks, and a client. */
async function balking(more: Parameters<typeof sessionOn>[2] = {}, patience?: { ownPatience: number }) {
  const broker = await createEmbedded({ data: 'none', ...limits, ...patience }, log)
  cleanup.add(() => broker.close())
  const journal = new Balking({ bounds, log })
  const session = await sessionOn(broker, journal, more)
  cleanup.add(() => session.close())
  const client = await connect(broker)
  cleanup.add(() => client.end())
  return { broker, journal, session, client, watched: new Watched(journal) }
}

describe('a journal that takes nothing', () => {
  it.each(['busy', 'unavailable'] as const)('gets it all in order when it takes it again: %s', async reason => {
    const { journal, session, client, watched } = await balking()
    journal.refuse = reason
    let acknowledged = 0
    const sent = Array.from({ length: 500 }, async (_, index) => {
      await client.client.publishAsync('t', `${index}`, { qos: 1 })
      expect(watched.payloads()[index]).toBe(`${index}`)
      acknowledged++
    })
    await eventually(() => journal.refused > 0)
    await expect(session.publish(message('ours', 'x'))).rejects.toMatchObject({ reason: 'journal-unavailable' })
    // Nobody is told of anything before it is tried again, nor then.
    const { refused } = journal
    await eventually(() => journal.refused > refused)
    expect(acknowledged).toBe(0)
    journal.refuse = undefined
    await Promise.all(sent)
    expect(watched.payloads()).toEqual(Array.from({ length: 500 }, (_, index) => `${index}`))
    await eventually(() =>
      session.publish(message('ours', 'x')).then(
        () => true,
        () => false,
      ),
    )
  })

  it('holds nobody up for long: MQTT goes on, and what was acknowledged meanwhile is there later', async () => {
    const { journal, client, watched } = await balking({}, { ownPatience })
    await client.subscribe('t', 1)
    journal.refuse = 'unavailable'
    await client.publish('t', 'first', { qos: 1 })
    expect(await client.text()).toBe('first')
    expect(watched.events).toEqual([])
    // To wait for each of them would take longer than the test may.
    for (let index = 0; index < 100; index++) await client.publish('t', `${index}`, { qos: index % 2 === 0 ? 1 : 2 })
    expect(watched.events).toEqual([])
    journal.refuse = undefined
    await watched.count(101)
    expect(watched.payloads()).toEqual(['first', ...Array.from({ length: 100 }, (_, index) => `${index}`)])
    // And acknowledgements are for what is there again.
    await client.publish('t', 'held', { qos: 1 })
    expect(watched.payloads().at(-1)).toBe('held')
  }, 20_000)

  it('has a hole where the broker could keep no more for it, and what was there before and after', async () => {
    const { journal, client, watched } = await balking({}, { ownPatience })
    journal.refuse = 'unavailable'
    const payload = Buffer.alloc(10_000, 'x')
    // The first megabyte is waited for, and so the rest is not.
    for (let index = 0; index < 700; index++) await client.publish(`t/${index}`, payload)
    journal.refuse = undefined
    await eventually(() => watched.events.some(isHole))
    await client.publish('after', '', { qos: 1 })
    const topics = watched.events.map(({ topic }) => topic)
    const hole = topics.indexOf('')
    expect(topics.slice(0, hole)).toEqual(Array.from({ length: hole }, (_, index) => `t/${index}`))
    expect(hole).toBeGreaterThan(100)
    expect(hole).toBeLessThan(700)
    expect(topics.slice(hole)).toEqual(['', 'after'])
  }, 20_000)

  it('leaves a hole where the gateway ends before what was acknowledged is there, and none where it ends as it should', async () => {
    const { journal: level, data } = await levelJournal()
    await level.append(message('earlier', ''))
    let refuses = false
    const journal: Journal = Object.create(level, {
      head: { get: () => level.head },
      retained: { value: level.retained.bind(level) },
      append: {
        value: (appended: Message) =>
          refuses ? Promise.reject(new JournalRefusal('unavailable')) : level.append(appended),
      },
    })
    const run = async (use: (client: Awaited<ReturnType<typeof connect>>) => Promise<unknown>): Promise<void> => {
      const broker = await createEmbedded({ data: 'none', ...limits, ownPatience }, log)
      const session = await sessionOn(broker, journal, { data })
      const client = await connect(broker)
      await use(client)
      await client.end()
      await session.close()
      await broker.close()
    }
    const topics = async (): Promise<string[]> => {
      const query = { after: 0, through: level.head, limit: 100, maxBytes: 2 ** 20 }
      return (await level.read(query)).events.map(({ topic }) => topic)
    }
    // What an earlier version, or nobody, left behind says nothing of what is missing.
    await run(client => client.publish('one', '', { qos: 1 }))
    expect(await topics()).toEqual(['earlier', '', 'one'])
    await run(client => client.publish('two', ''))
    expect(await topics()).toEqual(['earlier', '', 'one', 'two'])
    await run(async client => {
      refuses = true
      await client.publish('lost', '', { qos: 1 })
    })
    refuses = false
    await run(client => client.publish('three', '', { qos: 1 }))
    expect(await topics()).toEqual(['earlier', '', 'one', 'two', '', 'three'])
  }, 20_000)

  it('answers a publication that it does not take in time', async () => {
    const { journal, session } = await balking({ publishTimeout: 50 })
    journal.refuse = 'unavailable'
    await expect(session.publish(message('ours', 'x'))).rejects.toMatchObject({ reason: 'publish-timeout' })
  })
})

describe('a burst of QoS 0', () => {
  it('of 20 MB in one turn reaches the journal, all of it', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits }, log)
    cleanup.add(() => broker.close())
    const { journal, data } = await levelJournal()
    const watched = new Watched(journal)
    const session = await sessionOn(broker, journal, { data })
    cleanup.add(() => session.close())
    const client = await connect(broker)
    cleanup.add(() => client.end())
    const payload = Buffer.alloc(1000, 'x')
    for (let index = 0; index < 20_000; index++) client.client.publish(`t/${index}`, payload)
    const events = await watched.count(20_000)
    expect(events.map(({ topic }) => topic)).toEqual(Array.from({ length: 20_000 }, (_, index) => `t/${index}`))
  })
})

const program = fileURLToPath(new URL('./fixtures/session-program.js', import.meta.url))

describe('a gateway that is killed', () => {
  it('has lost nothing that was acknowledged, and has nothing twice', { timeout: 60_000 }, async () => {
    const directory = await cleanup.directory()
    const acknowledged = new Set<string>()
    let number = 0
    for (let round = 0; round < 4; round++) {
      const running = run(process.execPath, [program, directory])
      cleanup.add(() => running.stop('SIGKILL'))
      const port = Number(await running.line())
      const client = new MqttClient(() => connectTcp(port, '127.0.0.1'), { reconnectPeriod: 0, clientId: `p${round}` })
      client.on('error', () => {})
      await new Promise(resolve => client.once('connect', resolve))
      const publish = (payload: string): void => {
        client.publish('t', payload, { qos: 1 }, error => {
          if (!error) acknowledged.add(payload)
        })
      }
      const before = acknowledged.size
      for (let count = 0; count < 2000; count++) publish(String(number++))
      await eventually(() => acknowledged.size >= before + 300 + 100 * round)
      running.child.kill('SIGKILL')
      await running.exited()
      client.end(true)
    }
    const running = run(process.execPath, [program, directory])
    cleanup.add(() => running.stop('SIGKILL'))
    const port = Number(await running.line())
    const client = new MqttClient(() => connectTcp(port, '127.0.0.1'), { reconnectPeriod: 0, clientId: 'last' })
    client.on('error', () => {})
    // It comes behind all that the broker had not brought yet.
    await client.publishAsync('end', '', { qos: 1 })
    expect(await running.line()).toBe('end')
    client.end(true)
    running.child.kill('SIGKILL')
    await running.exited()
    const journal = await openLevelJournal({ directory: join(directory, 'journal'), bounds, log })
    cleanup.add(() => journal.close())
    const found: string[] = []
    for (let after = 0; after < journal.head; ) {
      const portion = await journal.read({ after, through: journal.head, limit: 1000, maxBytes: 2 ** 20 })
      for (const { payload } of portion.events) found.push(payload.toString())
      after = portion.position
    }
    const there = new Set(found)
    expect([...acknowledged].filter(payload => !there.has(payload))).toEqual([])
    expect(found.length).toBe(there.size)
    // There is no hole either: its place would be one without a payload, beside the end.
    expect(found.filter(payload => payload === '')).toHaveLength(1)
    expect(acknowledged.size).toBeGreaterThan(1000)
  })
})
