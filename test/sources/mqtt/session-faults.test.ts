import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import type { Broker } from '../../../src/broker/broker.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import type { Journal } from '../../../src/journal/journal.js'
import { openLevelJournal } from '../../../src/journal/level-journal.js'
import { limits } from '../../broker/embedded/limits.js'
import { connect } from '../../broker/embedded/mqtt-session.js'
import { type Mosquitto, startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { Balking, bounds, Cleanup, log, message, retainedOf, sessionOn, Watched } from '../rig.js'

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
    expect(session.connected).toBe(false)
    await expect(session.publish(message('a', 'x'))).rejects.toMatchObject({ reason: 'broker-away', httpStatus: 503 })
    await subject.start(directory)
    cleanup.add(() => subject.mosquitto?.stop())
    await eventually(() => session.connected)
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
    await eventually(() => !session.connected)
    await expect(session.publish(message('a', 'x'))).rejects.toMatchObject({ reason: 'broker-away' })
    await subject.start(directory)
    const client = await connect(broker)
    cleanup.add(() => client.end())
    await client.publish('meanwhile', '2', { qos: 1 })
    await eventually(() => session.connected)
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
    expect(first.connected).toBe(false)
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

describe('a journal that takes nothing, with a broker elsewhere', () => {
  async function balking(options: Parameters<typeof sessionOn>[2] = {}) {
    const broker = await createEmbedded({ data: 'none', ...limits }, log)
    cleanup.add(() => broker.close())
    const journal = new Balking({ bounds, log })
    const session = await sessionOn(broker, journal, { ...options, asUpstream: true })
    cleanup.add(() => session.close())
    const client = await connect(broker)
    cleanup.add(() => client.end())
    return { journal, session, client, watched: new Watched(journal) }
  }

  it.each(['busy', 'unavailable'] as const)('gets it all in order when it takes it again: %s', async reason => {
    const { journal, session, client, watched } = await balking()
    journal.refuse = reason
    const sent = Array.from({ length: 500 }, (_, index) =>
      client.client.publishAsync('t', `${index}`, { qos: 1 }).then(() => {}),
    )
    await eventually(() => journal.refused > 0)
    await expect(session.publish(message('ours', 'x'))).rejects.toMatchObject({ reason: 'journal-unavailable' })
    // Nobody is told of anything before it is tried again, nor then. The broker, which keeps it for push, has acknowledged it.
    const { refused } = journal
    await eventually(() => journal.refused > refused)
    await Promise.all(sent)
    expect(watched.events).toEqual([])
    journal.refuse = undefined
    await watched.count(500)
    expect(watched.payloads()).toEqual(Array.from({ length: 500 }, (_, index) => `${index}`))
    await eventually(() =>
      session.publish(message('ours', 'x')).then(
        () => true,
        () => false,
      ),
    )
  })

  it('answers a publication that it does not take in time', async () => {
    const { journal, session } = await balking({ publishTimeout: 50 })
    journal.refuse = 'unavailable'
    await expect(session.publish(message('ours', 'x'))).rejects.toMatchObject({ reason: 'publish-timeout' })
  })
})
