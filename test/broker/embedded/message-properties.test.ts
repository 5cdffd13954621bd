import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { AedesPublishPacket, Client } from 'aedes'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { type LevelBackend, openLevel } from '../../../src/broker/embedded/level-backend.js'
import { carried, propertiesOf } from '../../../src/broker/embedded/packet.js'
import { Retained } from '../../../src/broker/embedded/retained.js'
import { memoryBackend, RetainedMemory, type StorageBackend } from '../../../src/broker/embedded/storage-backend.js'
import { Store } from '../../../src/broker/embedded/store.js'
import { encodeProperties } from '../../../src/mqtt/properties.js'
import { eventually } from '../../helpers/wait.js'
import { limits } from './limits.js'

const log = createLog({ level: 'silent', format: 'json' })
const start = Date.UTC(2030, 0, 1)
const properties = encodeProperties({ contentType: 'text/plain', userProperties: [['a', 'b']] })

let counter = 0
function message(topic: string, { qos = 1, retain = false, expires = undefined as number | undefined } = {}) {
  const packet = {
    cmd: 'publish',
    topic,
    payload: Buffer.from(topic),
    qos: qos as 0 | 1 | 2,
    retain,
    dup: false,
  } as const
  const numbered = { ...packet, brokerId: 'mqway-0000000001', brokerCounter: ++counter }
  return { ...numbered, ...carried({ properties, ...(expires !== undefined && { expires }) }) } as AedesPublishPacket
}

describe.each(['memory', 'disk'] as const)('messages with properties in %s', kept => {
  let directory: string
  let storage: StorageBackend
  let store: Store
  const onError = (error: unknown): void => expect.unreachable(String(error))
  const openStore = async (more: Partial<typeof limits> = {}): Promise<void> => {
    storage = kept === 'disk' ? await openLevel(directory, log) : memoryBackend()
    store = new Store({ storage, limits: { ...limits, ...more }, log, onError })
    await store.setup({ id: 'mqway-0000000001' })
  }
  const closeStore = async (): Promise<void> => {
    await store.close()
    if (kept === 'disk') await (storage as LevelBackend).close()
  }
  const reader = { id: 'reader', clean: false } as Client
  const queue = (): Promise<AedesPublishPacket[]> =>
    Readable.from(storage.queues.read(reader.id, bytes => store.sessions.release(reader.id, bytes))).toArray()
  /** Sends the queue to a returning client, which acknowledges everything. */
  const replay = async (): Promise<string[]> => {
    const sent: string[] = []
    await store.queueReplay.run(reader, async packet => {
      const sending = { ...packet, messageId: packet.messageId ?? sent.length + 1 }
      sent.push(packet.topic)
      await store.outgoingUpdate(reader, sending)
      await store.outgoingClearMessageId(reader, sending)
      return true
    })
    return sent
  }
  const topics = async (): Promise<string[]> => (await queue()).map(({ topic }) => topic)
  /** Queues and waits until that is written. */
  const enqueue = async (...packets: AedesPublishPacket[]): Promise<void> => {
    for (const packet of packets) {
      await store.outgoingEnqueueCombi([{ clientId: reader.id, topic: 't', qos: 1 }], packet)
      await store.takeWrites()?.written
    }
  }

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'], now: start })
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    await openStore()
    store.sessions.open(reader.id)
  })
  afterEach(async () => {
    await closeStore()
    vi.useRealTimers()
    await rm(directory, { recursive: true })
  })

  it('have them in a queue, with the time of their end, also when they were sent', async () => {
    const expires = start + 60_000
    await enqueue(message('a', { expires }))
    const [first] = await queue()
    expect(first && propertiesOf(first)).toEqual({ properties, expires })
    await store.outgoingUpdate(reader, { ...message('a', { expires }), brokerCounter: counter - 1, messageId: 5 })
    const [second] = await queue()
    expect(second && propertiesOf(second)).toEqual({ properties, expires })
    expect(second?.messageId).toBe(5)
  })

  it('count in the bytes of the session', async () => {
    const room = () => store.sessions.queueRoomOf(reader.id)
    const before = room()
    const large = message('a')
    Object.assign(large, carried({ properties: encodeProperties({ correlationData: Buffer.alloc(60_000) }) }))
    await enqueue(large)
    expect(before - room()).toBeGreaterThan(60_000)
    await store.outgoingUpdate(reader, { ...large, messageId: 1 })
    await store.outgoingClearMessageId(reader, { ...large, messageId: 1 })
    expect(room()).toBe(before)
  })

  it('are not in a queue when they are expired, and take no room', async () => {
    const before = store.sessions.queueRoomOf(reader.id)
    await enqueue(message('a', { expires: start + 1000 }), message('b', { expires: start + 1001 }), message('c'))
    const sent = message('sent', { expires: start + 1000 })
    await enqueue(sent)
    await store.outgoingUpdate(reader, { ...sent, messageId: 9 })
    vi.setSystemTime(start + 1000)
    // One that was sent is repeated until it is acknowledged.
    expect(await topics()).toEqual(['b', 'c', 'sent'])
    vi.setSystemTime(start + 1001)
    expect(await topics()).toEqual(['c', 'sent'])
    await enqueue(message('d', { expires: start + 1001 }))
    expect(await replay()).toEqual(['c', 'sent'])
    expect(store.sessions.queueRoomOf(reader.id)).toBe(before)
  })

  it('leave a queue in time, for others that have no room', async () => {
    await closeStore()
    await openStore({ maxQueuedMessages: 3 })
    if (kept === 'memory') store.sessions.open(reader.id)
    await enqueue(...['a', 'b'].map(topic => message(topic, { expires: start + 1000 })), message('c'))
    await enqueue(message('d'))
    expect(store.sessions.dropped).toBe(1)
    const room = store.sessions.queueRoomOf(reader.id)
    vi.advanceTimersByTime(61_000)
    await eventually(() => store.sessions.queueRoomOf(reader.id) > room)
    await eventually(async () => (await queue()).length === 1)
    await enqueue(message('e'), message('f'))
    expect(store.sessions.dropped).toBe(1)
    expect(await topics()).toEqual(['c', 'e', 'f'])
  })

  if (kept === 'disk') {
    it('are not loaded when they are expired', async () => {
      const before = store.sessions.queueRoomOf(reader.id)
      await enqueue(message('a', { expires: start + 1000 }), message('b', { expires: start + 5000 }))
      const sent = message('sent', { expires: start + 1000 })
      await enqueue(sent)
      await store.outgoingUpdate(reader, { ...sent, messageId: 9 })
      await closeStore()
      vi.setSystemTime(start + 1000)
      await openStore()
      expect(storage.sessions).toMatchObject([{ id: 'reader', queued: 2, nextExpiry: start + 5000 }])
      expect(await topics()).toEqual(['b', 'sent'])
      const room = store.sessions.queueRoomOf(reader.id)
      expect(room).toBeLessThan(before)
      vi.advanceTimersByTime(61_000)
      await eventually(() => store.sessions.queueRoomOf(reader.id) > room)
      expect(await topics()).toEqual(['sent'])
    })
  }
})

describe.each(['memory', 'disk'] as const)('retained messages with properties in %s', kept => {
  const bounds = { maxRetainedMessages: 100, maxRetainedBytes: 100_000 }
  let directory: string
  let backend: LevelBackend | undefined
  let retained: Retained

  const make = () => new Retained({ storage: backend?.retained ?? new RetainedMemory(), bounds, log })
  const find = async (): Promise<AedesPublishPacket[]> => {
    const found: AedesPublishPacket[] = []
    for (const { topics } of retained.scan(['#'], () => false)) found.push(...(await retained.read(topics)))
    return found
  }
  const put = async (packet: AedesPublishPacket): Promise<void> => {
    await retained.store(packet, 'somebody').written
  }
  const topics = async (): Promise<string[]> => (await find()).map(({ topic }) => topic).sort()

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'], now: start })
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    backend = kept === 'disk' ? await openLevel(directory, log) : undefined
    retained = make()
  })
  afterEach(async () => {
    await retained.close()
    await backend?.close()
    vi.useRealTimers()
    await rm(directory, { recursive: true })
  })

  it('have them, and the time of their end', async () => {
    await put(message('a', { retain: true, expires: start + 1 }))
    await put(message('b', { retain: true }))
    expect((await find()).map(propertiesOf)).toEqual([{ properties, expires: start + 1 }, { properties }])
    expect(retained.figures().bytes).toBe(128)
    const large = message('c')
    Object.assign(large, carried({ properties: encodeProperties({ correlationData: Buffer.alloc(6000) }) }))
    await put(large)
    expect(retained.figures().bytes).toBeGreaterThan(6000)
  })

  it('are gone when they are expired, with the room that they took', async () => {
    for (const [topic, seconds] of [
      ['a', 1],
      ['b', 2],
      ['c', 2],
      ['d', 2],
    ] as const) {
      await put(message(topic, { expires: start + 1000 * seconds }))
    }
    await put(message('b'))
    await put({ ...message('c'), payload: Buffer.alloc(0) })
    // Before any timer.
    vi.setSystemTime(start + 1000)
    expect(await topics()).toEqual(['b', 'd'])
    vi.setSystemTime(start)
    vi.advanceTimersByTime(2000)
    await eventually(() => retained.figures().messages === 1)
    expect(retained.figures()).toMatchObject({ messages: 1, bytes: 64 })
    expect(vi.getTimerCount()).toBe(0)
    if (backend) expect(await backend.retained.read(['a', 'b', 'c', 'd'])).toHaveLength(1)
    // Its predecessor is outdated by a message that is over at once.
    await put(message('b', { expires: Date.now() }))
    expect(await topics()).toEqual([])
    expect(retained.figures()).toMatchObject({ messages: 0, bytes: 0 })
  })

  it('do not come out of a scan when they expire between the search and the reading', async () => {
    await put(message('a', { expires: start + 1000 }))
    const [batch] = retained.scan(['a'], () => false)
    expect(batch?.topics).toEqual(['a'])
    vi.setSystemTime(start + 1000)
    expect(await retained.read(['a'])).toEqual([])
  })

  if (kept === 'disk') {
    it('are not loaded when they are expired', async () => {
      await put(message('a', { expires: start + 1000 }))
      await put(message('b', { expires: start + 2000 }))
      await retained.close()
      vi.setSystemTime(start + 1000)
      retained = make()
      await retained.load()
      expect(retained.figures()).toMatchObject({ messages: 1, bytes: 64 })
      expect(await backend?.retained.read(['a', 'b'])).toHaveLength(1)
      vi.advanceTimersByTime(1000)
      await eventually(() => retained.figures().messages === 0)
    })
  }
})
