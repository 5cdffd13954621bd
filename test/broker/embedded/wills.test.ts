import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Client, PublishPacket } from 'aedes'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { type LevelBackend, openLevel } from '../../../src/broker/embedded/level-backend.js'
import { propertiesOf } from '../../../src/broker/embedded/packet.js'
import type { StoredWill, Will } from '../../../src/broker/embedded/storage-backend.js'
import { Store } from '../../../src/broker/embedded/store.js'
import { encodeProperties } from '../../../src/mqtt/properties.js'
import { writeStoredData } from '../../helpers/stored-data.js'
import { eventually, settled } from '../../helpers/wait.js'
import { limits } from './limits.js'
import { connect } from './mqtt-session.js'

const log = createLog({ level: 'silent', format: 'json' })
const onError = (error: unknown): void => expect.unreachable(String(error))
const start = Date.UTC(2030, 0, 1)
const encoded = encodeProperties({ contentType: 'text/plain' })

const willOf = (properties?: Will['properties'], topic = 'gone'): Will => ({
  topic,
  payload: Buffer.from('bye'),
  qos: 1,
  retain: false,
  ...(properties && { properties }),
})
/** A connection as Aedes passes it. */
const connectionOf = (id: string) => ({ id, clean: false, closed: false }) as Client & { closed: boolean }

describe('wills of an earlier run', () => {
  let directory: string
  let backend: LevelBackend
  let store: Store
  let published: PublishPacket[]

  const run = async (): Promise<void> => {
    began = Date.now()
    backend = await openLevel(directory, log)
    store = new Store({ storage: backend, limits, log, onError })
    await store.setup({
      id: `mqway-${backend.run}`,
      authorizePublish: (_client, _packet, done) => done(null),
      publish: (packet: PublishPacket, _client: unknown, done?: () => void) => {
        published.push(packet)
        done?.()
      },
    })
  }
  /** Ends the run as a crash does: no connection is closed. */
  const crash = async (): Promise<void> => {
    await store.close()
    await backend.close()
  }
  /** A connected client with a will, and a session if it has an expiry. */
  const connected = async (id: string, will: Will, expiry?: number) => {
    const client = connectionOf(id)
    if (expiry !== undefined) {
      store.sessions.admit(id, { owner: undefined, network: undefined }, expiry)
      await store.subscriptionsByClient({ id })
    } else await store.cleanSubscriptions({ id })
    await store.delWill(client)
    await store.putWill(client, will)
    store.sessions.connected(client)
    return client
  }
  const stored = async (): Promise<StoredWill[]> => {
    const wills: StoredWill[] = []
    for await (const will of backend.wills()) wills.push(will)
    return wills
  }
  const pass = (milliseconds: number) => vi.advanceTimersByTimeAsync(milliseconds)
  /** When the current run began. */
  let began = start
  /** Lets time pass until then since the start of the run; resolves with the topics of the `count` wills that are published then. */
  const publishedAfter = async (milliseconds: number, count: number): Promise<string[]> => {
    published = []
    await pass(began + milliseconds - Date.now())
    // Reading and writing takes real time, and sets further timers.
    await eventually(async () => {
      if (count > 0) await pass(10)
      return published.length >= count && (await stored()).length <= left - count
    })
    left -= count
    return published.map(({ topic }) => topic)
  }
  let left = 0

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'], now: start })
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    published = []
    await run()
  })
  afterEach(async () => {
    await crash()
    vi.useRealTimers()
    await rm(directory, { recursive: true })
  })

  it('are published with their properties once their delay, or the time to return, is over', async () => {
    const expiring = { willDelayInterval: 60, messageExpiryInterval: 30, encoded }
    await connected('plain', willOf(undefined, 'plain'))
    await connected('slow', willOf(expiring, 'slow'), 3600)
    // Its session has ended with its connection.
    await connected('sessionless', willOf({ willDelayInterval: 60 }, 'sessionless'))
    await crash()
    vi.setSystemTime(start + 3_600_000)
    await run()
    expect((await stored()).find(({ clientId }) => clientId === 'slow')?.properties).toEqual(expiring)
    left = 3
    expect(await publishedAfter(9000, 0)).toEqual([])
    expect((await publishedAfter(10_000, 2)).sort()).toEqual(['plain', 'sessionless'])
    expect(await publishedAfter(59_000, 0)).toEqual([])
    expect(await publishedAfter(60_000, 1)).toEqual(['slow'])
    const [{ properties, expires = 0 } = {}] = published.map(propertiesOf)
    expect(properties).toEqual(encoded)
    expect(Math.round((expires - began) / 1000)).toBe(90)
    await crash()
    await run()
    expect(await stored()).toEqual([])
  })

  it('are published when their session ends, if that is earlier', async () => {
    await connected('short', willOf({ willDelayInterval: 60 }, 'short'), 5)
    await connected('started anew', willOf({ willDelayInterval: 60 }, 'started anew'), 3600)
    await crash()
    await run()
    // Clean Start, with a will of its own.
    await store.cleanSubscriptions(connectionOf('started anew'))
    const client = connectionOf('started anew')
    await store.delWill(client)
    await store.putWill(client, willOf(undefined, 'next'))
    left = 3
    expect(await publishedAfter(1000, 1)).toEqual(['started anew'])
    expect(await publishedAfter(4500, 0)).toEqual([])
    expect(await publishedAfter(5000, 1)).toEqual(['short'])
  })

  it('are not published for a client that is back in time', async () => {
    await connected('a', willOf({ willDelayInterval: 5 }), 3600)
    await connected('b', willOf())
    await crash()
    await run()
    await connected('a', willOf({ willDelayInterval: 5 }, 'next'), 3600)
    await store.delWill(connectionOf('b'))
    expect((await stored()).map(({ topic }) => topic)).toEqual(['next'])
    await pass(60_000)
    await settled(() => published.length)
    expect(published).toEqual([])
    expect((await stored()).map(({ topic }) => topic)).toEqual(['next'])
  })

  it('are published by the run after the next one, if that ended before', async () => {
    await connected('a', willOf({ willDelayInterval: 60 }), 3600)
    await crash()
    await run()
    await pass(30_000)
    await crash()
    await run()
    left = 1
    expect(await publishedAfter(59_000, 0)).toEqual([])
    expect(await publishedAfter(60_000, 1)).toEqual(['gone'])
  })

  it('are those of the version before MQTT 5, too', async () => {
    await crash()
    await rm(directory, { recursive: true })
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    await writeStoredData(directory, new URL('fixtures/data-before-mqtt5.json', import.meta.url))
    await run()
    left = 1
    expect(await publishedAfter(10_000, 1)).toEqual(['state/willing'])
    expect(published).toMatchObject([{ payload: Buffer.from('gone'), qos: 1, retain: true }])
  })

  it('are none of the broker’s own topics', async () => {
    await connected('a', willOf(undefined, '$SYS/broker/fake'))
    expect(await stored()).toEqual([])
  })

  it('are those of the last connection: the end of an earlier one comes late', async () => {
    const first = await connected('a', willOf(undefined, 'first'))
    const second = await connected('a', willOf(undefined, 'second'))
    // Aedes closes the first one, publishes its will, and removes it.
    first.closed = true
    await store.delWill({ id: 'a' })
    expect((await stored()).map(({ topic }) => topic)).toEqual(['second'])
    second.closed = true
    await store.delWill({ id: 'a' })
    expect(await stored()).toEqual([])
    // One that is replaced by a connection without a will.
    const third = await connected('a', willOf(undefined, 'third'))
    await store.delWill(connectionOf('a'))
    third.closed = true
    await store.delWill({ id: 'a' })
    expect(await stored()).toEqual([])
  })
})

it('a will of an earlier run gets to subscribers of the next one, after its delay', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-'))
  const before = await openLevel(directory, log)
  await before.keepSession('device', {
    owner: undefined,
    network: undefined,
    seen: Date.now(),
    expiry: 100,
    wasConnected: true,
  })
  const will = { ...willOf({ willDelayInterval: 1, encoded }), brokerId: 'mqway-0000000001', clientId: 'device' }
  await before.putWill(will)
  await before.close()
  const broker = await createEmbedded({ ...limits, data: directory }, log)
  const reader = await connect(broker)
  await reader.subscribe('gone', 1)
  expect(await reader.next()).toMatchObject({ topic: 'gone', payload: Buffer.from('bye'), qos: 1, retain: false })
  await reader.end()
  await broker.close()
  const after = await openLevel(directory, log)
  expect(await after.will('device')).toBeUndefined()
  await after.close()
  await rm(directory, { recursive: true })
})
