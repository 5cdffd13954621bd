import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Client } from 'aedes'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { type LevelBackend, openLevel } from '../../../src/broker/embedded/level-backend.js'
import { memoryBackend, type StorageBackend } from '../../../src/broker/embedded/storage-backend.js'
import { Store } from '../../../src/broker/embedded/store.js'
import { eventually } from '../../helpers/wait.js'
import { limits } from './limits.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })
const start = Date.UTC(2030, 0, 1)
const never = 0xffff_ffff
const day = 86_400_000
const alice = { owner: 'user:alice', network: undefined }
const bob = { owner: 'user:bob', network: undefined }

describe.each(['memory', 'disk'] as const)('sessions with an expiry of their own in %s', kept => {
  let directory: string
  let storage: StorageBackend
  let store: Store
  let ended: string[]
  let sessionExpiry: number | 'off'
  const onError = (error: unknown): void => expect.unreachable(String(error))

  const run = async (): Promise<void> => {
    storage = kept === 'disk' ? await openLevel(directory, log) : memoryBackend()
    const onEnded = (reason: string): void => void ended.push(reason)
    store = new Store({ storage, limits: { ...limits, sessionExpiry }, log, onError, onEnded })
    await store.setup({ id: 'mqway-0000000001' })
    await store.sessions.expire()
  }
  const stop = async (): Promise<void> => {
    await store.close()
    if (kept === 'disk') await (storage as LevelBackend).close()
  }
  /** Connects as Aedes does; resolves with the client and whether it had a session. */
  const connect = async (id: string, expiry?: number, holder = alice) => {
    const client = { id, clean: false } as Client
    store.sessions.admit(id, holder, expiry)
    const isPresent = (await store.subscriptionsByClient({ id })).length > 0
    store.sessions.connected(client)
    return { client, isPresent }
  }
  /** A disconnected client with a subscription. */
  const leave = async (id: string, expiry?: number): Promise<void> => {
    const { client } = await connect(id, expiry)
    await store.addSubscriptions(client, [{ topic: `to/${id}`, qos: 1 }])
    store.sessions.disconnected(client)
  }
  const queues = async (id: string): Promise<boolean> => (await store.subscriptionsByTopic(`to/${id}`)).length > 0
  /** Lets time pass, and each timer do its work. */
  const pass = async (milliseconds: number, ends = 0): Promise<void> => {
    await vi.advanceTimersByTimeAsync(milliseconds)
    await eventually(() => ended.length === ends)
    // A sweep that would end more.
    await store.sessions.expire()
    expect(ended).toHaveLength(ends)
  }

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'], now: start })
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    sessionExpiry = 7 * day
    ended = []
    await run()
  })
  afterEach(async () => {
    await stop()
    vi.useRealTimers()
    await rm(directory, { recursive: true })
  })

  it('end when it is over, and not before', async () => {
    await leave('short', 5)
    await leave('long', 60)
    await pass(4999)
    expect(await queues('short')).toBe(true)
    await pass(1, 1)
    expect([await queues('short'), await queues('long')]).toEqual([false, true])
    if (kept === 'disk') {
      await stop()
      await run()
      expect(storage.sessions.map(({ id }) => id)).toEqual(['long'])
    }
  })

  it('are as long as the option, where they have none or a longer one', async () => {
    await leave('old')
    await leave('forever', never)
    await leave('long', 8 * 86_400)
    await pass(7 * day - 1)
    await pass(1, 3)
  })

  it('do not end with `off`, unless they have one of their own', async () => {
    await stop()
    sessionExpiry = 'off'
    await run()
    await leave('old')
    await leave('forever', never)
    await leave('short', 5)
    await pass(60_000, 1)
    await pass(10 * 365 * day, 1)
    expect([await queues('old'), await queues('forever')]).toEqual([true, true])
  })

  it('are over for a CONNECT, also where no timer has run', async () => {
    await leave('a', 5)
    await leave('b', 5)
    await leave('c', 5)
    vi.setSystemTime(start + 5000)
    expect((await connect('a', 5)).isPresent).toBe(false)
    expect(await queues('a')).toBe(false)
    // Nor does it belong to its user any longer.
    expect(store.sessions.ownerOf('b')).toBeUndefined()
    expect((await connect('b', 5, bob)).isPresent).toBe(false)
    expect(store.sessions.ownerOf('b')).toBe('user:bob')
    expect(ended).toEqual(['expired', 'expired'])
    if (kept === 'disk') {
      // The new session is stored: its record came after the removal of the earlier one.
      await stop()
      await run()
      expect((await connect('a')).isPresent).toBe(true)
      expect(store.sessions.ownerOf('b')).toBe('user:bob')
    }
  })

  it('do not end while their client is connected, and count from the last disconnection', async () => {
    await leave('a', 5)
    await pass(4000)
    const { client, isPresent } = await connect('a', 5)
    expect(isPresent).toBe(true)
    await pass(60_000)
    store.sessions.disconnected(client)
    await pass(4999)
    await pass(1, 1)
  })

  it('have the one of the last CONNECT, or of the DISCONNECT', async () => {
    await leave('a', 5)
    await leave('a', 10)
    await pass(9999)
    await pass(1, 1)
    const { client } = await connect('b', 100)
    store.sessions.setExpiry('b', 0)
    store.sessions.disconnected(client)
    expect((await connect('b', 100)).isPresent).toBe(false)
    await leave('c', 5)
    await leave('c')
    await pass(60_000, 2)
  })

  it('have the one of a connection that takes over another one', async () => {
    const first = await connect('a', 5)
    store.sessions.admit('a', alice, 60)
    await store.subscriptionsByClient({ id: 'a' })
    // Aedes ends the first connection now, whose DISCONNECT may have changed its own.
    store.sessions.setExpiry('a', 7)
    store.sessions.disconnected(first.client)
    const second = { id: 'a', clean: false } as Client
    store.sessions.connected(second)
    store.sessions.disconnected(second)
    await pass(59_999)
    await pass(1, 1)
  })

  it('end for a client that never came so far as to be connected', async () => {
    store.sessions.admit('new', alice, 5)
    await store.subscriptionsByClient({ id: 'new' })
    store.sessions.abandon('new')
    await pass(5000, 1)
  })

  it('are new for a client with Clean Start', async () => {
    await leave('a', 100)
    store.sessions.admit('a', alice, 5)
    const client = { id: 'a', clean: false, closed: false } as Client
    await store.cleanSubscriptions(client)
    store.sessions.connected(client)
    expect(await queues('a')).toBe(false)
    expect(store.sessions.ownerOf('a')).toBe('user:alice')
    store.sessions.disconnected(client)
    await pass(4999)
    await pass(1, 1)
    // Without a session, it has none.
    await store.cleanSubscriptions({ id: 'b', clean: true, closed: false } as Client)
    expect(store.sessions.has('b')).toBe(false)
  })

  if (kept === 'disk') {
    it('go on after a restart', async () => {
      await leave('short', 5)
      await leave('long', 60)
      await leave('old')
      await stop()
      vi.setSystemTime(start + 5000)
      await run()
      expect(ended).toEqual(['expired'])
      expect([await queues('short'), await queues('long'), await queues('old')]).toEqual([false, true, true])
      await pass(54_999, 1)
      await pass(1, 2)
      await pass(7 * day, 3)
      await stop()
      const database = new Level(join(directory, 'broker'))
      expect((await database.keys().all()).filter(key => key !== 'mqway:run')).toEqual([])
      await database.close()
      await run()
    })

    it('count from the restart, where the client had taken over its own connection', async () => {
      const first = await connect('a', 5)
      store.sessions.admit('a', alice, 5)
      await store.subscriptionsByClient({ id: 'a' })
      // Aedes ends the first connection, and then the second one is connected.
      store.sessions.disconnected(first.client)
      store.sessions.connected({ id: 'a', clean: false } as Client)
      await stop()
      vi.setSystemTime(start + 7200_000)
      await run()
      await pass(4999)
      await pass(1, 1)
    })

    it('count from the restart, where the client was connected', async () => {
      await connect('a', 5)
      vi.setSystemTime(start + 3600_000)
      // As after a crash: nothing was disconnected.
      await stop()
      vi.setSystemTime(start + 7200_000)
      await run()
      await pass(4000)
      await stop()
      await run()
      // From the first restart, where it did not return.
      await pass(999)
      await pass(1, 1)
    })
  }
})

it('a session of a running broker ends by itself, and its queue with it', async () => {
  const ended: string[] = []
  const sessions = { watch: () => {}, ended: (reason: string) => void ended.push(reason), dropped: () => {} }
  const broker = await createEmbedded({ ...limits, data: 'none', sessionExpiry: 100 }, log, { sessions })
  const sleeper = await connectRaw(broker, { clientId: 'sleeper', clean: false })
  await sleeper.session.subscribe(['t'])
  await sleeper.session.end()
  await eventually(() => ended.length > 0)
  expect(ended).toEqual(['expired'])
  const { session, sessionPresent } = await connectRaw(broker, { clientId: 'sleeper', clean: false })
  expect(sessionPresent).toBe(false)
  await session.end()
  await broker.close()
})
