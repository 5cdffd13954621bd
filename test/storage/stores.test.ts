import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { openLevelStore } from '../../src/storage/level-store.js'
import { MemoryStore } from '../../src/storage/memory-store.js'
import { connectRedis, redisOptions } from '../../src/storage/redis.js'
import { RedisStore } from '../../src/storage/redis-store.js'
import { describeStore } from '../contracts/store.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { makeLevelPlace } from '../receipts/places.js'

describe('a store in memory', () => {
  const place = { open: async () => new MemoryStore(), crash: async () => {}, dispose: async () => {} }
  describeStore(async () => place, { durable: false })

  it('is loaded in parts, in each of which the event loop goes on', async () => {
    const size = 100_000
    const keys = Array.from({ length: size }, (_, index) => String((index * 7919) % size).padStart(6, '0'))
    const pages = async function* () {
      for (let at = 0; at < size; at += 1000) yield keys.slice(at, at + 1000).map(key => [key, key] as const)
      yield [['000001', 'again']] as const
    }
    const store = new MemoryStore()
    let [turns, isLoaded] = [0, false]
    const count = (): void => {
      turns++
      if (!isLoaded) setImmediate(count)
    }
    setImmediate(count)
    await store.load(pages())
    isLoaded = true
    expect(turns).toBeGreaterThan(30)
    const all = await store.range({ gte: '', lt: '~' }, size + 1)
    expect(all.map(([key]) => key)).toEqual(keys.sort())
    expect(all[1]).toEqual(['000001', 'again'])
  })
})

describe('a store on disk', () => {
  describeStore(makeLevelPlace, { durable: true })

  it('is moved aside when it is damaged, and a new one begins', async () => {
    const root = await mkdtemp(join(tmpdir(), 'mqway-receipts-'))
    onTestFinished(() => rm(root, { recursive: true }))
    const directory = join(root, 'receipts')
    const logged: Record<string, unknown>[] = []
    const log = pino({ level: 'info' }, { write: line => void logged.push(JSON.parse(line)) })
    const open = () => openLevelStore({ directory, log, clock: () => Date.UTC(2030, 1, 2, 3, 4, 5) })
    const store = await open()
    await store.batch([{ type: 'put', key: 'a', value: 'b' }])
    await expect(open()).rejects.toThrow(/^Another mqway .*--data DIR/)
    await store.close()
    await writeFile(join(directory, 'CURRENT'), 'nonsense')
    const fresh = await open()
    expect(await fresh.get('a')).toBeUndefined()
    await fresh.close()
    expect(await readdir(root)).toEqual(['receipts', 'receipts.damaged-2030-02-02T03-04-05.000Z'])
    expect(logged).toMatchObject([{ level: 50, msg: expect.stringContaining('moved the damaged database') }])
  })

  it('says in one line that it cannot be made', async () => {
    const log = pino({ level: 'silent' })
    await expect(openLevelStore({ directory: '/dev/null/x', log })).rejects.toMatchObject({
      name: 'StartError',
      message: expect.stringMatching(/^Cannot keep the receipts .*--data DIR/),
    })
  })
})

describeWith('redis-server', 'a store in Redis', () => {
  let server: RedisServer
  let redis: Awaited<ReturnType<typeof connectRedis>>
  beforeAll(async () => {
    server = await startRedis(['--appendonly', 'yes'])
    const options = await redisOptions({ url: server.url, prefix: '' })
    redis = await connectRedis(options, server.url, pino({ level: 'silent' }))
  })
  afterAll(async () => {
    redis.disconnect()
    await server.stop()
  })
  const open = (token = 'mine') => new RedisStore({ redis, lease: 'lease', token, key: 'records' })
  const put = (key: string, value = '') => ({ type: 'put', key, value }) as const
  const all = { gte: '', lt: '~' }
  const connected = () => eventually(() => redis.ping().then(Boolean, () => false))
  const makePlace = async () => {
    await server.client.flushall()
    await server.client.set('lease', 'mine')
    return { open: async () => open(), crash: async () => {}, dispose: async () => {} }
  }

  describeStore(makePlace, { durable: true })

  describe('with one writer', () => {
    beforeEach(async () => void (await makePlace()))

    it('refuses the changes of a former holder of the lease, for ever', async () => {
      const former = open()
      await former.batch([put('a', '1')])
      await server.client.set('lease', 'other')
      const next = open('other')
      await next.batch([put('a', '2')])
      await expect(former.batch([put('a', '3')])).rejects.toThrow('another gateway has the lease')
      await expect(former.get('a')).rejects.toThrow('closed')
      expect(await next.get('a')).toBe('2')
      expect(await server.client.hget('records', ':a')).toBe('2')
    })

    it('reads what Redis has after it has lost its end, and makes no change on top of what is lost', async () => {
      const store = open()
      await store.batch([put('a', '1')])
      const before = await server.client.dumpBuffer('records')
      await store.batch([put('b', '2')])
      // As after a failover to a replica that was behind.
      await server.client.call('RESTORE', 'records', 0, before, 'REPLACE')
      await expect(store.batch([put('c', '3')])).rejects.toThrow('another state')
      expect(await store.range(all, 10)).toEqual([['a', '1']])
      await store.batch([put('c', '3')])
      expect(await server.client.hget('records', ':c')).toBe('3')
    })

    it('finds out whether Redis has made a change of which no answer came', async () => {
      const store = open()
      await store.batch([put('a', '1')])
      server.pause()
      const batch = expect(store.batch([put('a', '2')])).rejects.toThrow()
      // The command is on its way.
      await new Promise(setImmediate)
      await new Promise(setImmediate)
      redis.stream.destroy()
      await batch
      server.resume()
      await connected()
      await eventually(async () => (await server.client.hget('records', ':a')) === '2')
      expect(await store.get('a')).toBe('2')
      await store.batch([put('b')])
      expect(await open().range(all, 10)).toEqual([
        ['a', '2'],
        ['b', ''],
      ])
    })

    it('rejects while Redis is away, and goes on with everything when it is back', async () => {
      const store = open()
      await store.batch([put('a', '1')])
      await server.kill()
      await expect(store.batch([put('b', '2')])).rejects.toThrow()
      await server.start()
      await connected()
      await store.batch([put('c', '3')])
      expect((await store.range(all, 10)).map(([key]) => key)).toEqual(['a', 'c'])
    })
  })
})
