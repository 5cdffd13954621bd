import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { TimeSlicer } from '../../../src/base/time-slicer.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { MemoryQueues } from '../../../src/broker/embedded/session-queues.js'
import { type SessionLimits, Sessions } from '../../../src/broker/embedded/sessions.js'
import { memoryBackend } from '../../../src/broker/embedded/storage-backend.js'
import { limits } from './limits.js'
import { connect } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

function makeSessions(bounds: Partial<SessionLimits>): { sessions: Sessions; ended: string[]; dropped: string[] } {
  const [ended, dropped]: [string[], string[]] = [[], []]
  const sessions = new Sessions({
    storage: memoryBackend(),
    slicer: new TimeSlicer(),
    limits: { ...limits, ...bounds },
    end: async id => void ended.push(id),
    onDropped: bound => dropped.push(bound),
    log,
    onError: error => expect.unreachable(String(error)),
  })
  return { sessions, ended, dropped }
}

const alice = { owner: 'user:alice', network: undefined }
const bob = { owner: 'user:bob', network: undefined }

describe('at a bound of sessions', () => {
  it('the longest absent one of the same user ends, and nobody else’s', () => {
    const { sessions, ended } = makeSessions({ maxSessionsPerUser: 2 })
    for (const id of ['b1', 'b2']) sessions.admit(id, bob)
    for (const id of ['a1', 'a2']) sessions.admit(id, alice)
    for (const id of ['b1', 'b2', 'a2', 'a1']) sessions.abandon(id)
    expect(sessions.admit('a3', alice)).toBe(true)
    expect(ended).toEqual(['a2'])
    expect(['a1', 'a3', 'b1', 'b2'].every(id => sessions.has(id))).toBe(true)
  })

  it('a new one is refused where all of them have their client', () => {
    const { sessions, ended } = makeSessions({ maxSessionsPerUser: 1 })
    sessions.admit('a1', alice)
    sessions.connected({ id: 'a1' })
    expect(() => sessions.admit('a2', alice)).toThrow('All sessions that you may have are in use')
    expect([ended, sessions.has('a2')]).toEqual([[], false])
  })

  it('one that its user cannot take over ends in time, as before', async () => {
    const { sessions, ended } = makeSessions({ maxSessionsPerUser: 1, sessionExpiry: 1000 })
    const client = { id: 'free' }
    sessions.open('free')
    sessions.connected(client)
    sessions.disconnected(client)
    sessions.admit('a1', alice)
    sessions.connected({ id: 'a1' })
    expect(() => sessions.admit('free', alice)).toThrow('All sessions that you may have are in use')
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 1000 })
    onTestFinished(() => void vi.useRealTimers())
    await sessions.expire()
    expect(ended).toEqual(['free'])
  })

  it('in all, the longest absent one of the user with most ends', () => {
    const { sessions, ended } = makeSessions({ maxSessions: 3 })
    for (const id of ['b1', 'a1', 'a2']) sessions.admit(id, id.startsWith('b') ? bob : alice)
    for (const id of ['b1', 'a1', 'a2']) sessions.abandon(id)
    sessions.admit('c1', { owner: 'user:carol', network: undefined })
    expect(ended).toEqual(['a1'])
  })

  it('a message too many in bytes is dropped for this session; one alone may have any size', () => {
    const { sessions, dropped } = makeSessions({ maxSessionBytes: 1000 })
    for (const id of ['a1', 'a2']) sessions.admit(id, alice)
    expect(sessions.admitMessage('a1', 5000)).toBe(true)
    expect(sessions.admitMessage('a1', 1)).toBe(false)
    expect(sessions.admitMessage('a2', 1)).toBe(true)
    sessions.release('a1', 5000)
    expect(sessions.admitMessage('a1', 1)).toBe(true)
    expect(dropped).toEqual(['maxSessionBytes'])
  })

  it('no user takes the bytes that are left for others', () => {
    const { sessions, dropped } = makeSessions({ maxSessionsBytes: 100_000, maxSessionBytes: 100_000 })
    sessions.admit('a1', alice)
    sessions.admit('b1', bob)
    while (sessions.admitMessage('a1', 1000));
    expect(sessions.figures.bytes).toBeLessThanOrEqual(52_000)
    expect(sessions.admitMessage('b1', 20_000)).toBe(true)
    expect(dropped).toEqual(['maxSessionsBytes'])
  })
})

it('a queue is in the order of its messages, whatever the order in which they are added', async () => {
  const queues = new MemoryQueues()
  const packet = { cmd: 'publish', topic: 't', payload: '', qos: 1, retain: false, dup: false, brokerId: 'b' } as const
  for (const brokerCounter of [1, 3, 2, 4]) await queues.prepare({ ...packet, brokerCounter }).add(['a', 'c'])
  const order: number[] = []
  for await (const { brokerCounter } of queues.read('a', () => {})) order.push(brokerCounter)
  expect(order).toEqual([1, 2, 3, 4])
  expect(await queues.trim('a', 450)).toMatchObject({ queued: 2 })
  expect(await queues.trim('c', 10_000)).toMatchObject({ queued: 4 })
})

describe('a client without a name, where it may have no session', () => {
  const start = async (bounds: Partial<typeof limits>): Promise<EmbeddedBroker> => {
    const broker = await createEmbedded({ ...limits, data: 'none', ...bounds }, log)
    onTestFinished(() => broker.close())
    return broker
  }

  it('is served, and has its session until its connection ends', async () => {
    const broker = await start({ maxAnonymousSessions: 0 })
    const first = await connect(broker, { clientId: 'guest', clean: false })
    await first.subscribe('a', 1)
    await first.publish('a', '1', { qos: 1 })
    expect(await first.text()).toBe('1')
    await first.end()
    await vi.waitUntil(() => broker.figures().connected === 0)
    const { session, sessionPresent } = await connectRaw(broker, { clientId: 'guest', clean: false })
    expect(sessionPresent).toBe(false)
    await session.end()
  })
})

describe('a message for many absent sessions', () => {
  const count = 300

  it('is acknowledged when all of them have it; who comes back meanwhile gets all, once and in order', async () => {
    const broker = await createEmbedded({ ...limits, data: 'none' }, log)
    onTestFinished(() => broker.close())
    for (let index = 0; index < count; index++) {
      const session = await connect(broker, { clientId: `absent-${index}`, clean: false })
      await session.subscribe('line', 1)
      await session.end()
    }
    await vi.waitUntil(() => broker.figures().connected === 0)
    const publisher = await connect(broker)
    const texts = Array.from({ length: 20 }, (_, index) => String(index))
    const published = texts.map(text => publisher.publish('line', text, { qos: 1 }))
    const early = await connect(broker, { clientId: `absent-${count - 1}`, clean: false })
    await Promise.all(published)
    const late = await connect(broker, { clientId: 'absent-7', clean: false })
    for (const session of [early, late]) {
      const received: string[] = []
      for (const _ of texts) received.push(await session.text())
      expect(received).toEqual(texts)
      await session.end()
    }
    await publisher.end()
  })
})
