import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MqttClient } from 'mqtt'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createEmbedded, type EmbeddedBroker, type EmbeddedOptions } from '../../src/broker/embedded/embedded.js'
import { isGapMarker } from '../../src/journal/event.js'
import { type Journal, JournalRefusal } from '../../src/journal/journal.js'
import { openLevelJournal } from '../../src/journal/level-journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import type { Message } from '../../src/mqtt/message.js'
import { openEmbeddedSource } from '../../src/sources/embedded.js'
import type { Source } from '../../src/sources/publisher.js'
import { RememberedSubscriptions } from '../../src/sources/remembered-subscriptions.js'
import { limits } from '../broker/embedded/limits.js'
import { connect, type Session } from '../broker/embedded/mqtt-session.js'
import { connectRaw } from '../broker/embedded/raw-session.js'
import { run } from '../helpers/processes.js'
import { eventually, settled } from '../helpers/wait.js'
import {
  Balking,
  bounds,
  Cleanup,
  log,
  message,
  retainedOf,
  SlowJournal,
  type SourceOptions,
  sessionOn,
  Watched,
} from './rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

async function startBroker(more: Partial<EmbeddedOptions> = {}): Promise<EmbeddedBroker> {
  const broker = await createEmbedded({ ...limits, data: 'none', ...more }, log)
  cleanup.add(() => broker.close())
  return broker
}

async function clientOf(broker: EmbeddedBroker): Promise<Session> {
  const client = await connect(broker)
  cleanup.add(() => client.end())
  return client
}

async function levelJournal(): Promise<{ journal: Journal; data: string }> {
  const data = await cleanup.directory()
  const journal = await openLevelJournal({ directory: join(data, 'journal'), bounds, log })
  cleanup.add(() => journal.close())
  return { journal, data }
}

/** A source with a client beside it. */
async function start<J extends Journal = MemoryJournal>(options: SourceOptions = {}, given?: J) {
  const broker = await startBroker()
  const journal = given ?? (new MemoryJournal({ bounds, log }) as Journal as J)
  const source = await sessionOn(broker, journal, options)
  cleanup.add(() => source.close())
  return { broker, journal, source, client: await clientOf(broker), watched: new Watched(journal) }
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => `${index}`)

describe('what the embedded broker retains when its source starts', () => {
  const retain = true

  /** A broker that retains messages, with a journal that knows what is given. */
  async function prepare(known: readonly Message[] = [], more: Partial<EmbeddedOptions> = {}) {
    const broker = await startBroker(more)
    const journal = new MemoryJournal({ bounds, log })
    for (const each of known) await journal.append(each)
    return { broker, journal, client: await clientOf(broker), watched: new Watched(journal) }
  }
  const open = async (broker: EmbeddedBroker, journal: Journal, topics: string[]): Promise<Source> => {
    const source = await sessionOn(broker, journal, { config: { topics } })
    cleanup.add(() => source.close())
    return source
  }
  const texts = (watched: Watched): string[] => watched.events.map(({ topic, payload }) => `${topic}=${payload}`)

  it('is in the journal when it is open: what is other than there, or missing', async () => {
    const on = (topic: string) => message(topic, 'on', { retain })
    const { broker, journal, client, watched } = await prepare([on('same'), on('changed')])
    for (const topic of ['same', 'new']) await client.publish(topic, 'on', { qos: 1, retain })
    await client.publish('changed', 'of', { qos: 1, retain })
    await open(broker, journal, ['#'])
    await watched.count(3)
    // What was missed while nobody wrote it down is not known: so there is a gap first.
    expect(watched.events.map(isGapMarker)).toEqual([true, false, false])
    expect(texts(watched).slice(1).sort()).toEqual(['changed=of', 'new=on'])
    expect(await retainedOf(journal)).toEqual({ same: 'on', changed: 'of', new: 'on' })
  })

  it('comes once, however much it is and however many filters match it, and what none matches does not', async () => {
    const { broker, journal, client, watched } = await prepare([], { maxRetainedMessages: 10_000 })
    const count = 3000
    await Promise.all(numbers(count).map(number => client.publish(`a/${number}`, 'on', { qos: 1, retain })))
    await client.publish('other', 'on', { qos: 1, retain })
    await open(broker, journal, ['a/#', 'a/+', 'a/1', '+/2', 'end'])
    // It comes behind all of them.
    await client.publish('end', '', { qos: 1 })
    expect(watched.events).toHaveLength(count + 1)
    expect(Object.keys(await retainedOf(journal))).toHaveLength(count)
  })

  it('comes with its QoS, and is no event again at the next start', async () => {
    const { broker, journal, client, watched } = await prepare()
    for (const qos of [0, 1, 2] as const) await client.publish(`t/${qos}`, 'on', { qos, retain })
    await client.subscribe('answered-behind-them')
    await (await open(broker, journal, ['#'])).close()
    const events = [...watched.events].sort((one, other) => one.qos - other.qos)
    expect(events.map(({ topic, qos }) => [topic, qos])).toEqual([0, 1, 2].map(qos => [`t/${qos}`, qos]))
    await open(broker, journal, ['#'])
    expect(watched.events.filter(event => !isGapMarker(event))).toHaveLength(3)
  })

  it('is not told again over a live message that comes meanwhile', async () => {
    const { broker, journal, client, watched } = await prepare()
    for (const number of numbers(500)) await client.publish(`t/${number}`, 'old', { qos: 1, retain })
    const opening = open(broker, journal, ['#'])
    const sent = numbers(500).map(number => client.publish(`t/${number}`, 'new', { qos: 1, retain }))
    await Promise.all([opening, ...sent])
    // Some are told twice where the broker retained them before they became events; the last one is right in any case.
    expect(new Set(Object.values(await retainedOf(journal)))).toEqual(new Set(['new']))
    const last = new Map(watched.events.map(({ topic, payload }) => [topic, `${payload}`]))
    expect(last.size).toBe(500)
    expect(new Set(last.values())).toEqual(new Set(['new']))
  })

  it('is not lost where the journal takes nothing at first', async () => {
    const broker = await startBroker()
    const client = await clientOf(broker)
    for (const number of numbers(20)) await client.publish(`t/${number}`, 'on', { qos: 1, retain })
    const journal = new Balking({ bounds, log })
    journal.refuse = 'unavailable'
    const opening = open(broker, journal, ['#'])
    await eventually(() => journal.refused > 1)
    journal.refuse = undefined
    await opening
    await eventually(async () => Object.keys(await retainedOf(journal)).length === 20)
  })
})

describe('what is published at the embedded broker', () => {
  it.each([0, 1, 2] as const)('has the QoS %i of its publication in the journal', async qos => {
    const { client, source, watched } = await start()
    await client.publish('theirs', 'x', { qos })
    await watched.count(1)
    await source.publish(message('ours', 'x', { qos }))
    expect((await watched.count(2)).map(event => [event.topic, event.qos])).toEqual([
      ['theirs', qos],
      ['ours', qos],
    ])
  })

  it('is in the journal when it is acknowledged, in the order of each publisher', async () => {
    const { broker, source, watched } = await start()
    const clients = [await clientOf(broker), await clientOf(broker), await clientOf(broker)]
    const count = 300
    const sent = clients.flatMap((client, name) =>
      numbers(count).map(async number => {
        const qos = name === 0 ? 1 : (([0, 1, 2] as const)[Number(number) % 3] ?? 0)
        await client.publish(`t/${Number(number) % 7}`, `${name}:${number}`, { qos })
        if (qos > 0) expect(watched.payloads()).toContain(`${name}:${number}`)
      }),
    )
    const own = numbers(count).map(number => source.publish(message('t', `own:${number}`), { by: 'alice' }))
    await Promise.all([...sent, ...own])
    await watched.count(4 * count)
    for (const name of ['0', '1', '2', 'own']) {
      const texts = watched.payloads().filter(text => text.startsWith(`${name}:`))
      expect(texts).toEqual(numbers(count).map(number => `${name}:${number}`))
    }
  })

  it('is retained in the journal as at the broker, until it is cleared', async () => {
    const { client, source, journal } = await start()
    await client.publish('a', 'on', { qos: 1, retain: true })
    await source.publish(message('b', 'on', { retain: true }))
    await client.publish('c', 'on', { qos: 1 })
    expect(await retainedOf(journal)).toEqual({ a: 'on', b: 'on' })
    await client.publish('a', '', { qos: 1, retain: true })
    await source.publish(message('b', '', { retain: true }))
    expect(await retainedOf(journal)).toEqual({})
  })

  it('is in the journal where it is a will', async () => {
    const { broker, watched } = await start()
    const will = { topic: 'will', payload: Buffer.from('gone'), qos: 1 as const, retain: false }
    const { session } = await connectRaw(broker, { clientId: 'mortal', clean: true, will })
    session.stream.destroy()
    expect(await watched.count(1)).toMatchObject([{ topic: 'will', payload: Buffer.from('gone') }])
  })

  it('is written without delay where somebody waits for it, and with it what nobody waits for', async () => {
    // Nobody watches the journal: what is wanted is written without delay.
    const broker = await startBroker()
    const journal = new MemoryJournal({ bounds, log })
    const source = await sessionOn(broker, journal)
    cleanup.add(() => source.close())
    const client = await clientOf(broker)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    cleanup.add(() => vi.useRealTimers())
    await client.publish('t', 'QoS 0')
    await settled(() => journal.head)
    expect(journal.head).toBe(0)
    await client.publish('t', 'QoS 1', { qos: 1 })
    expect(journal.head).toBe(2)
    await client.publish('t', 'QoS 0')
    await settled(() => journal.head)
    expect(journal.head).toBe(2)
    expect(await source.publish(message('t', 'of its own'))).toMatchObject({ sequence: 4 })
  })

  it('comes to the journal all of it in a burst of 20 MB of QoS 0 in one turn', async () => {
    const { journal, data } = await levelJournal()
    const { client, watched } = await start({ data }, journal)
    const payload = Buffer.alloc(1000, 'x')
    for (let index = 0; index < 20_000; index++) client.client.publish(`t/${index}`, payload)
    const events = await watched.count(20_000)
    expect(events.map(({ topic }) => topic)).toEqual(numbers(20_000).map(number => `t/${number}`))
  })

  it('comes to the journal all of it, beside a subscriber that reads nothing, for which messages are dropped', async () => {
    const broker = await startBroker({ maxQueuedBytes: 64 * 1024 })
    const journal = new MemoryJournal({ bounds, log })
    const source = await sessionOn(broker, journal)
    cleanup.add(() => source.close())
    const watched = new Watched(journal)
    const slow = await connect(broker)
    cleanup.add(() => slow.stream.destroy())
    await slow.subscribe('#', 0)
    slow.stream.pause()
    const client = await clientOf(broker)
    const payload = Buffer.alloc(1000, 'x')
    for (let index = 0; index < 20_000; index++) client.client.publish(`t/${index}`, payload)
    await watched.count(20_000)
    expect(broker.figures().publishesDropped).toBeGreaterThan(0)
  })

  it('waits at the broker for a journal that takes its time: no more than 4 MB wait for the disk', async () => {
    const { client, journal, watched } = await start({}, new SlowJournal({ bounds, log }))
    journal.hold()
    const payload = Buffer.alloc(10_000, 'x')
    for (let index = 0; index < 2000; index++) client.client.publish(`t/${index}`, payload)
    await settled(() => journal.asked)
    expect(journal.asked * payload.length).toBeGreaterThan(4_000_000)
    expect(journal.asked * payload.length).toBeLessThan(4.5 * 2 ** 20)
    journal.letGo()
    await watched.count(2000)
    expect(watched.events.map(({ topic }) => topic)).toEqual(numbers(2000).map(number => `t/${number}`))
  })

  it('is of the topics that are configured, and none of Aedes’ own', async () => {
    const { broker, client, watched } = await start({ config: { topics: ['$SYS/#', '#'] } })
    await client.subscribe('some/#', 1)
    const passing = await connect(broker)
    await passing.publish('$SYS/fake', 'x', { qos: 1 })
    await passing.end()
    await client.publish('t', 'last', { qos: 1 })
    await eventually(() => watched.payloads().includes('last'))
    const topics = new Set(watched.events.map(({ topic }) => topic))
    expect([...topics].filter(topic => !topic.startsWith('$SYS/broker/'))).toEqual(['t'])
  })

  it('has the broker’s figures with it where they are configured, and else not', async () => {
    const one = await start({ config: { topics: ['$SYS/#'] } })
    await eventually(async () => '$SYS/broker/version' in (await retainedOf(one.journal, ['$SYS/#'])))
    const other = await start()
    await other.client.publish('t', 'x', { qos: 1 })
    expect(await retainedOf(other.journal, ['$SYS/#'])).toEqual({})
    expect(other.watched.payloads()).toEqual(['x'])
  })
})

describe('a publication over the source of the embedded broker', () => {
  const tooLate = { reason: 'publish-timeout' }

  it('is the event that it became, and reaches the subscribers', async () => {
    const { client, source, watched } = await start()
    await client.subscribe('news', 2)
    const event = await source.publish(message('news', 'hello', { qos: 2 }), { by: 'alice' })
    expect(event).toEqual((await watched.count(1))[0])
    expect(event).toMatchObject({ topic: 'news', payload: Buffer.from('hello'), qos: 2, sequence: 1 })
    expect(await client.next()).toMatchObject({ topic: 'news', payload: Buffer.from('hello'), qos: 2 })
  })

  it('is told apart from the very same message of others', async () => {
    const { client, source, watched } = await start()
    const theirs = numbers(50).map(() => client.publish('t', 'same', { qos: 1 }))
    const ours = numbers(50).map(() => source.publish(message('t', 'same')))
    const events = await Promise.all(ours)
    await Promise.all(theirs)
    expect(watched.events).toHaveLength(100)
    expect(new Set(events.map(event => event?.sequence)).size).toBe(50)
  })

  it('has no event where no filter matches it, and reaches the subscribers all the same', async () => {
    const { client, source, watched } = await start({ config: { topics: ['news/#'] } })
    await client.subscribe('other', 1)
    for (const qos of [0, 1, 2] as const) {
      expect(await source.publish(message('other', `${qos}`, { qos }))).toBeUndefined()
      expect(await client.text()).toBe(`${qos}`)
    }
    expect(watched.events).toEqual([])
  })

  it('is refused where the broker would not take its packet', async () => {
    const { source } = await start({ packetSize: 1000 })
    expect(await source.publish(message('t', 'x'.repeat(990)))).toMatchObject({ sequence: 1 })
    const refusal = { reason: 'body-too-large', text: expect.stringContaining('embedded.maxPacketSize') }
    await expect(source.publish(message('t', 'x'.repeat(991)))).rejects.toMatchObject(refusal)
  })

  it('is refused at once where the journal takes nothing, and not where its topic is not for the journal', async () => {
    const journal = new Balking({ bounds, log })
    const { source, client } = await start({ config: { topics: ['kept'] } }, journal)
    journal.refuse = 'unavailable'
    void client.publish('kept', 'x', { qos: 1 })
    await eventually(() => journal.refused > 0)
    await expect(source.publish(message('kept', 'x'))).rejects.toMatchObject({
      reason: 'journal-unavailable',
      httpStatus: 503,
    })
    journal.refuse = undefined
    await eventually(() =>
      source.publish(message('kept', 'x')).then(
        () => true,
        () => false,
      ),
    )
    expect(await source.publish(message('other', 'x'))).toBeUndefined()
  })

  it('is given up when its time is over, and is an event all the same when the disk has it', async () => {
    const { source, journal, watched } = await start({ publishTimeout: 50 }, new SlowJournal({ bounds, log }))
    journal.hold()
    await expect(source.publish(message('t', 'hasty'))).rejects.toMatchObject(tooLate)
    const patient = source.publish(message('t', 'patient'), { extraTimeout: 60_000 })
    await expect(source.publish(message('t', 'hasty'))).rejects.toMatchObject(tooLate)
    journal.letGo()
    expect(await patient).toMatchObject({ sequence: 2 })
    await watched.count(3)
    expect(watched.payloads()).toEqual(['hasty', 'patient', 'hasty'])
  })

  it('is given up when its time is over where the journal refuses it', async () => {
    const { source, journal } = await start({ publishTimeout: 50 }, new Balking({ bounds, log }))
    journal.refuse = 'unavailable'
    await expect(source.publish(message('ours', 'x'))).rejects.toMatchObject(tooLate)
    journal.refuse = undefined
    await eventually(() => journal.head === 1)
  })

  it('counts for whoever publishes: nobody has more than half of what may be in progress', async () => {
    const { source, journal } = await start({ publishTimeout: 60_000 }, new SlowJournal({ bounds, log }))
    journal.hold()
    const tooFast = { reason: 'publishing-too-fast', httpStatus: 429 }
    const all = numbers(5000).map(number => source.publish(message('t', number), { by: 'alice' }))
    await expect(source.publish(message('t', 'x'), { by: 'alice' })).rejects.toMatchObject(tooFast)
    // Half of what is left.
    all.push(...numbers(2500).map(number => source.publish(message('t', number), { by: 'bob' })))
    await expect(source.publish(message('t', 'x'), { by: 'bob' })).rejects.toMatchObject(tooFast)
    // mqway itself may have all of it.
    all.push(...numbers(2500).map(number => source.publish(message('t', number))))
    const full = { reason: 'broker-away', retryAfter: 1 }
    await expect(source.publish(message('t', 'x'))).rejects.toMatchObject(full)
    await expect(source.publish(message('t', 'x'), { by: 'carol' })).rejects.toMatchObject(full)
    journal.letGo()
    const events = await Promise.all(all)
    expect(new Set(events.map(event => event?.sequence)).size).toBe(10_000)
    expect(await source.publish(message('t', 'x'), { by: 'alice' })).toMatchObject({ sequence: 10_001 })
  })

  it('counts by its bytes, too', async () => {
    const { source, journal } = await start({ publishTimeout: 60_000 }, new SlowJournal({ bounds, log }))
    journal.hold()
    const large = 'x'.repeat(30 * 2 ** 20)
    const tooFast = { reason: 'publishing-too-fast' }
    const all = [source.publish(message('t', large), { by: 'alice' })]
    await expect(source.publish(message('t', large), { by: 'alice' })).rejects.toMatchObject(tooFast)
    all.push(source.publish(message('t', large), { by: 'bob' }))
    await expect(source.publish(message('t', large), { by: 'carol' })).rejects.toMatchObject({ reason: 'broker-away' })
    all.push(source.publish(message('t', 'x'), { by: 'carol' }))
    journal.letGo()
    await Promise.all(all)
  })

  it('is refused when the source is closed', async () => {
    const { source } = await start()
    await source.close()
    expect([source.connected, source.failure]).toEqual([false, expect.any(String)])
    await expect(source.publish(message('t', 'x'))).rejects.toMatchObject({ reason: 'broker-away', httpStatus: 503 })
  })
})

describe('the source of the embedded broker that is closed', () => {
  it('has in the journal what clients had published by then, and that was acknowledged', async () => {
    const { journal, data } = await levelJournal()
    const { broker, client, source, watched } = await start({ data }, journal)
    await client.publish('first', '', { qos: 1 })
    const sent = numbers(200).map(number => client.publish('t', number, { qos: 1 }))
    await source.close()
    await Promise.all(sent)
    const again = await sessionOn(broker, journal, { data })
    cleanup.add(() => again.close())
    await client.publish('end', '', { qos: 1 })
    const found = watched.events.filter(({ topic }) => topic === 't').map(({ payload }) => `${payload}`)
    // Or else there is a gap where the others are missing.
    if (!watched.events.some(isGapMarker)) expect(found).toEqual(numbers(200))
  })

  it('has in the journal the wills of connections that were lost before', async () => {
    const { broker, source, watched } = await start()
    const will = { topic: 'will', payload: Buffer.from('gone'), qos: 1 as const, retain: false }
    const clients = await Promise.all(
      numbers(20).map(number => connectRaw(broker, { clientId: `mortal-${number}`, clean: true, will })),
    )
    for (const { session } of clients) session.stream.destroy()
    await eventually(() => broker.figures().connected <= 1)
    await source.close()
    expect(watched.events.map(({ topic }) => topic)).toEqual(Array(20).fill('will'))
  })
})

/** So that a test need not wait for as long as publishers do, in milliseconds. */
const ackTimeout = 500

async function balking(options: SourceOptions = {}) {
  return start(options, new Balking({ bounds, log }))
}

describe('a journal that takes nothing', () => {
  it.each(['busy', 'unavailable'] as const)('gets it all in order when it takes it again: %s', async reason => {
    const { journal, source, client, watched } = await balking()
    journal.refuse = reason
    let acknowledged = 0
    const sent = Array.from({ length: 500 }, async (_, index) => {
      await client.client.publishAsync('t', `${index}`, { qos: 1 })
      expect(watched.payloads()[index]).toBe(`${index}`)
      acknowledged++
    })
    await eventually(() => journal.refused > 0)
    await expect(source.publish(message('ours', 'x'))).rejects.toMatchObject({ reason: 'journal-unavailable' })
    // Nobody is told of anything before it is tried again, nor then.
    const { refused } = journal
    await eventually(() => journal.refused > refused)
    expect(acknowledged).toBe(0)
    journal.refuse = undefined
    await Promise.all(sent)
    expect(watched.payloads()).toEqual(numbers(500))
    await eventually(() =>
      source.publish(message('ours', 'x')).then(
        () => true,
        () => false,
      ),
    )
  })

  it('holds nobody up for long: MQTT goes on, and what was acknowledged meanwhile is there later', async () => {
    const { journal, client, watched } = await balking({ ackTimeout })
    await client.subscribe('t', 1)
    journal.refuse = 'unavailable'
    await client.publish('t', 'first', { qos: 1 })
    expect(await client.text()).toBe('first')
    expect(watched.events).toEqual([])
    journal.refuse = undefined
    await watched.count(1)
    expect(watched.payloads()).toEqual(['first'])
    // And acknowledgements are for what is there again.
    await client.publish('t', 'held', { qos: 1 })
    expect(watched.payloads()).toEqual(['first', 'held'])
  }, 20_000)

  it('acknowledges at once what comes when it has taken nothing for long: to wait for each would take too long', async () => {
    const { journal, client, watched } = await balking({ ackTimeout })
    await client.subscribe('t', 1)
    journal.refuse = 'unavailable'
    for (let index = 0; index < 100; index++) await client.publish('t', `${index}`, { qos: index % 2 === 0 ? 1 : 2 })
    expect(await client.text()).toBe('0')
    expect(watched.events).toEqual([])
    journal.refuse = undefined
    // What did not fit into the queue before the journal is a gap, and all else is there, in order.
    await eventually(() => watched.events.length > 0)
    await client.publish('t', 'held', { qos: 1 })
    expect(watched.payloads().at(-1)).toBe('held')
    const kept = watched.events.filter(event => !isGapMarker(event)).map(({ payload }) => `${payload}`)
    expect(kept.slice(0, -1)).toEqual(numbers(kept.length - 1))
    const holes = watched.events.filter(isGapMarker).length
    expect(holes).toBe(kept.length === 101 ? 0 : 1)
  }, 20_000)

  it('does not lapse as long as it takes something now and then', async () => {
    const { client, journal, watched } = await start({ ackTimeout: 100 }, new SlowJournal({ bounds, log }))
    for (const number of numbers(5)) {
      journal.hold()
      let isAcknowledged = false
      const published = client.publish('t', number, { qos: 1 }).then(() => {
        isAcknowledged = true
      })
      await eventually(() => journal.asked === Number(number) + 1)
      await new Promise(resolve => setTimeout(resolve, 50))
      expect(isAcknowledged).toBe(false)
      journal.letGo()
      await published
    }
    expect(watched.payloads()).toEqual(numbers(5))
  })

  it('has a hole where the queue before it could take no more, and what was there before and after', async () => {
    const { journal, client, watched } = await balking({ ackTimeout })
    journal.refuse = 'unavailable'
    const payload = Buffer.alloc(10_000, 'x')
    for (let index = 0; index < 700; index++) await client.publish(`t/${index}`, payload)
    // It comes when all of them were given to the journal or dropped.
    await client.publish('behind', '', { qos: 1 })
    journal.refuse = undefined
    await eventually(() => watched.events.some(isGapMarker))
    await client.publish('after', '', { qos: 1 })
    const topics = watched.events.map(({ topic }) => topic)
    const hole = topics.indexOf('')
    expect(topics.slice(0, hole)).toEqual(numbers(hole).map(number => `t/${number}`))
    expect(hole).toBeGreaterThan(0)
    expect(hole).toBeLessThan(700)
    expect(topics.slice(hole)).toEqual(['', 'after'])
  }, 20_000)

  it('gets the states of which it could not take the news, behind the hole', async () => {
    const { journal, client, watched } = await balking({ ackTimeout })
    await client.publish('state', 'old', { qos: 1, retain: true })
    await client.publish('same', 'on', { qos: 1, retain: true })
    journal.refuse = 'unavailable'
    // Acknowledged when nobody waits for the journal any more; more than it may have waiting.
    await client.publish('lapse', '', { qos: 1 })
    await client.publish('state', 'new', { qos: 1, retain: true })
    await client.publish('another', 'new', { qos: 1, retain: true })
    expect(watched.events).toHaveLength(2)
    journal.refuse = undefined
    await eventually(async () => (await retainedOf(journal))['another'] === 'new')
    await eventually(async () => (await retainedOf(journal))['state'] === 'new')
    expect(await retainedOf(journal)).toEqual({ state: 'new', same: 'on', another: 'new' })
    const topics = watched.events.map(({ topic }) => topic)
    expect(topics.filter(topic => topic === 'same')).toHaveLength(1)
    expect(topics.indexOf('')).toBe(3)
    expect(topics.slice(4).sort()).toEqual(['another', 'state'])
  }, 20_000)

  it('answers whoever publishes a message that it could not take', async () => {
    const { journal, source, client } = await balking({ ackTimeout, publishTimeout: 10_000 })
    journal.refuse = 'unavailable'
    const waiting = source.publish(message('ours', 'first'))
    await client.publish('lapse', '', { qos: 1 })
    await expect(source.publish(message('ours', 'x'))).rejects.toMatchObject({ reason: 'journal-unavailable' })
    journal.refuse = undefined
    expect(await waiting).toMatchObject({ topic: 'ours' })
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
    const run = async (use: (client: Session) => Promise<unknown>): Promise<void> => {
      const broker = await createEmbedded({ data: 'none', ...limits }, log)
      const source = await sessionOn(broker, journal, { data, ackTimeout })
      const client = await connect(broker)
      await use(client)
      await client.end()
      await source.close()
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
    await run(async () => {})
    expect(await topics()).toEqual(['earlier', '', 'one', 'two', '', 'three'])
  }, 20_000)

  it('is closed when it is stored that the journal has every message', async () => {
    const { journal } = await levelJournal()
    const broker = await startBroker()
    const remembered = new RememberedSubscriptions(undefined)
    let isStored = false
    let store = (): void => {}
    const stored = new Promise<void>(resolve => {
      store = resolve
    })
    remembered.save = async () => {
      await stored
      isStored = true
    }
    const source = await openEmbeddedSource({ broker, journal, topics: ['#'], remembered, log })
    const closed = source.close().then(() => isStored)
    await journal.append(message('meanwhile', ''))
    store()
    expect(await closed).toBe(true)
  })

  it('leaves a hole where the source is closed while acknowledgements wait for it, which are given then', async () => {
    const { journal: level, data } = await levelJournal()
    let refuses = false
    const journal: Journal = Object.create(level, {
      head: { get: () => level.head },
      retained: { value: level.retained.bind(level) },
      append: {
        value: (appended: Message) =>
          refuses ? Promise.reject(new JournalRefusal('unavailable')) : level.append(appended),
      },
    })
    const broker = await startBroker()
    const client = await clientOf(broker)
    const first = await sessionOn(broker, journal, { data, ackTimeout: 60_000, publishTimeout: 60_000 })
    await client.publish('one', '', { qos: 1 })
    refuses = true
    const held = client.publish('lost', '', { qos: 1 })
    const answer = expect(first.publish(message('ours', ''))).rejects.toMatchObject({
      reason: expect.stringMatching(/^(publish-timeout|journal-unavailable)$/),
    })
    await settled(() => level.head)
    await first.close()
    await Promise.all([held, answer])
    refuses = false
    const second = await sessionOn(broker, journal, { data })
    cleanup.add(() => second.close())
    await client.publish('two', '', { qos: 1 })
    const query = { after: 0, through: level.head, limit: 100, maxBytes: 2 ** 20 }
    expect((await level.read(query)).events.map(({ topic }) => topic)).toEqual(['one', '', 'two'])
  })
})

const program = fileURLToPath(new URL('./fixtures/source-program.js', import.meta.url))

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
