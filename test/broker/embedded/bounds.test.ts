import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { TimeSlicer } from '../../../src/base/time-slicer.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { openLevel } from '../../../src/broker/embedded/level-backend.js'
import { Sessions } from '../../../src/broker/embedded/sessions.js'
import { memoryBackend } from '../../../src/broker/embedded/storage-backend.js'
import { Store } from '../../../src/broker/embedded/store.js'
import { limits as defaults } from './limits.js'
import { connect, type Session, somePeer } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })
const warnings: string[] = []
log.warn = (...args: unknown[]) => {
  warnings.push(String(args.at(-1)))
}
const limits = { ...defaults, maxQueuedMessages: 3, maxRetainedMessages: 4 }
const sleeper = { clientId: 'sleeper', clean: false }
const onError = (error: unknown) => expect.unreachable(String(error))

describe.each(['memory', 'disk'])('what is kept in %s has bounds', kept => {
  let directory: string
  let broker: EmbeddedBroker
  let publisher: Session
  const start = async (more: Partial<typeof limits> | { sessionExpiry?: number } = {}): Promise<void> => {
    broker = await createEmbedded({ ...limits, data: kept === 'disk' ? directory : 'none', ...more }, log)
    publisher = await connect(broker)
  }
  const stop = async (): Promise<void> => {
    await publisher.end()
    await broker.close()
  }
  const publish = async (...payloads: string[]): Promise<void> => {
    for (const payload of payloads) await publisher.publish('line', payload, { qos: 1 })
  }
  /** Lets the sleeper subscribe, and go. */
  const fallAsleep = async (): Promise<void> => {
    const session = await connect(broker, sleeper)
    await session.subscribe('line', 1)
    await session.end()
    // The publisher alone is left.
    await vi.waitUntil(() => broker.figures().connected === 1)
  }
  /** Lets the sleeper come back, and take all there is. */
  const wake = async (): Promise<string[]> => {
    const session = await connect(broker, sleeper)
    await publish('end')
    const received: string[] = []
    for (let text = await session.text(); text !== 'end'; text = await session.text()) received.push(text)
    // Stored behind the acknowledgements: the queue is empty then.
    await session.subscribe('line', 1)
    await session.end()
    await vi.waitUntil(() => broker.figures().connected === 1)
    return received
  }

  beforeEach(async () => {
    warnings.length = 0
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    await start()
  })
  afterEach(async () => {
    await stop()
    await rm(directory, { recursive: true })
  })

  it('a full queue keeps the old messages and drops the new ones, which is counted, and logged once', async () => {
    await fallAsleep()
    await publish('1', '2', '3', '4', '5')
    expect(broker.figures().publishesDropped).toBe(2)
    expect(warnings).toEqual(['3 messages wait for the session (embedded.maxQueuedMessages): dropping further ones'])
    expect(await wake()).toEqual(['1', '2', '3'])
    await publish('6', '7', '8', '9')
    expect(await wake()).toEqual(['6', '7', '8'])
    expect(warnings).toHaveLength(1)
  })

  it('a client that is connected gets more than that at once', async () => {
    const session = await connect(broker, sleeper)
    await session.subscribe('line', 1)
    await Promise.all(Array.from({ length: 100 }, (_, index) => publish(String(index))))
    for (let index = 0; index < 100; index++) expect(await session.text()).toBe(String(index))
    await session.end()
  })

  it('a client that wants no session has nothing left of the one it had', async () => {
    await fallAsleep()
    await publish('1', '2')
    const clean = await connect(broker, { clientId: 'sleeper', clean: true })
    await clean.end()
    const { session, sessionPresent } = await connectRaw(broker, sleeper)
    expect(sessionPresent).toBe(false)
    await session.end()
    await fallAsleep()
    expect(await wake()).toEqual([])
  })

  it('a message for one topic too many is delivered and not retained; a topic that is cleared makes room', async () => {
    const reader = await connect(broker)
    await reader.subscribe('state/#', 1)
    const retain = (topic: string, payload: string) => publisher.publish(topic, payload, { qos: 1, retain: true })
    for (const name of ['a', 'b', 'c', 'd', 'a']) await retain(`state/${name}`, name)
    for (const name of ['a', 'b', 'c', 'd', 'a']) expect(await reader.text()).toBe(name)
    expect(warnings).toHaveLength(1)
    await retain('state/b', '')
    await retain('state/d', 'd')
    const late = await connect(broker)
    await late.subscribe('state/#', 1)
    expect([await late.text(), await late.text()].sort()).toEqual(['a', 'd'])
    await Promise.all([reader.end(), late.end()])
  })

  if (kept === 'memory') return

  it('a queue that was full before a restart is full after it', async () => {
    await fallAsleep()
    await publish('1', '2')
    await stop()
    await start()
    await publish('3', '4')
    expect(await wake()).toEqual(['1', '2', '3'])
  })

  it('a session whose client stays away too long ends, with what waits in it', async () => {
    await fallAsleep()
    await publish('1')
    await stop()
    await start({ sessionExpiry: 0 })
    const { session, sessionPresent } = await connectRaw(broker, sleeper)
    expect(sessionPresent).toBe(false)
    await session.end()
    await stop()
    await start()
    await fallAsleep()
    expect(await wake()).toEqual([])
  })
})

describe('sessions', () => {
  it('do not end while their client is connected, also where another connection took its place', async () => {
    const ended: string[] = []
    const base = memoryBackend()
    const sessions = new Sessions({
      storage: base,
      limits: { ...limits, sessionExpiry: 0 },
      slicer: new TimeSlicer(),
      end: async id => void ended.push(id),
      log,
      onError,
    })
    const [first, second] = [{ id: 'sleeper' }, { id: 'sleeper' }]
    sessions.open('sleeper')
    sessions.connected(first)
    sessions.connected(second)
    sessions.disconnected(first)
    await sessions.expire()
    expect(ended).toEqual([])
    sessions.disconnected(second)
    await sessions.expire()
    expect(ended).toEqual(['sleeper'])
  })
})

it('an acknowledgement that comes twice counts once for the session’s queue', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-bounds-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  // On disk, where each acknowledgement is read.
  const backend = await openLevel(directory, log)
  onTestFinished(() => backend.close())
  const store = new Store({ storage: backend, limits, log, onError })
  const client = { id: 'c', clean: false }
  store.sessions.open(client.id)
  const message = (counter: number) => {
    const packet = { cmd: 'publish', topic: 't', payload: 'x', qos: 1, dup: false, retain: false } as const
    return { ...packet, brokerId: 'broker', brokerCounter: counter }
  }
  const room = store.sessions.queueRoomOf(client.id)
  await store.outgoingEnqueueCombi([{ clientId: client.id, topic: 't', qos: 1 }], message(1))
  await store.outgoingEnqueueCombi([{ clientId: client.id, topic: 't', qos: 1 }], message(2))
  const each = (room - store.sessions.queueRoomOf(client.id)) / 2
  await store.outgoingUpdate(client, { ...message(1), messageId: 1 })
  const ids = store.packetIdsOf(client)
  ids.take(1, 'puback')
  const acknowledgement = { ...message(1), messageId: 1 }
  const first = store.outgoingClearMessageId(client, acknowledgement)
  expect(await store.outgoingClearMessageId(client, acknowledgement)).toBeUndefined()
  // No other message may have the identifier yet.
  expect(ids.used).toBe(1)
  expect((await first)?.brokerCounter).toBe(1)
  expect(ids.used).toBe(0)
  expect(room - store.sessions.queueRoomOf(client.id)).toBe(each)
})

it('a connection without a CONNECT ends when it was told, and not at a time of the library’s own', async () => {
  const broker = await createEmbedded({ ...limits, connectTimeout: 50, data: 'none' }, log)
  const stream = await broker.open(somePeer)
  await once(stream.resume(), 'end')
  stream.destroy()
  await broker.close()
})
