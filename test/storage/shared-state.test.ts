import { once } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { MemoryState } from '../../src/storage/memory-state.js'
import { RedisState } from '../../src/storage/redis-state.js'
import type { StateBounds } from '../../src/storage/shared-state.js'
import { describeState } from '../contracts/shared-state.js'
import { startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const bounds: StateBounds = {
  maxAge: 60_000,
  maxEntries: 100,
  maxBytes: 1_000_000,
  maxEntriesPerOwner: 50,
  maxBytesPerOwner: 500_000,
  whenFull: 'evict',
}

describe('the state of a gateway alone', () => {
  describeState(async () => {
    let now = 0
    const state = new MemoryState(() => now)
    return {
      open: () => state,
      pass: async milliseconds => {
        now += milliseconds
      },
      dispose: async () => {},
    }
  })
})

describeWith(['redis-server'], 'the state in Redis', () => {
  const place = async () => {
    const redis = await startRedis()
    // The permissions in docs/several-gateways.md.
    const rights = ['resetchannels', '+@read', '+@write', '+@scripting', '+@connection', '+info', '+time']
    await redis.client.acl('SETUSER', 'limited', 'on', '>secret', '~p:*', ...rights)
    const client = redis.client.duplicate({ username: 'limited', password: 'secret' })
    client.on('error', () => {})
    await once(client, 'ready')
    const shared = { redis: client, config: { url: redis.url, prefix: 'p:' } }
    return {
      redis,
      open: () => new RedisState(shared),
      pass: async (milliseconds: number) => {
        const until = performance.now() + milliseconds
        await eventually(() => performance.now() >= until)
      },
      dispose: async () => {
        client.disconnect()
        await redis.stop()
      },
    }
  }
  const opened = async () => {
    const made = await place()
    onTestFinished(made.dispose)
    return made
  }

  describeState(place)

  it('is the same at each gateway', async () => {
    const { open } = await opened()
    const [a, b] = [open().collection('c', bounds), open().collection('c', bounds)]
    const version = await a.set('k', '', { value: 'v', owner: 'o' })
    expect(await b.get('k')).toMatchObject({ value: 'v', version })
    expect(await b.set('k', version ?? '', undefined)).toBe('')
    expect((await a.get('k')).version).toBe('')
  })

  it('gives each gateway the usage of the others once, with its age', async () => {
    const { open, pass } = await opened()
    const [a, b, c] = [open(), open(), open()]
    const usage = [
      { limit: 'l', key: 'ü"k', amount: 1.5 },
      { limit: 'm', key: '2', amount: 7 },
    ]
    expect(await a.exchange(usage)).toEqual([])
    await pass(30)
    const [report] = await b.exchange([{ limit: 'l', key: 'b', amount: 1 }])
    expect(report?.usage).toEqual(usage)
    expect(report?.age).toBeGreaterThanOrEqual(29)
    expect(report?.age).toBeLessThan(5000)
    expect(await b.exchange([])).toEqual([])
    expect((await a.exchange([])).map(({ usage }) => usage)).toEqual([[{ limit: 'l', key: 'b', amount: 1 }]])
    expect((await c.exchange([])).flatMap(({ usage }) => usage)).toHaveLength(3)
  })

  it('gives no usage again and again after the clock of Redis was set back', async () => {
    const { open, redis } = await opened()
    const [a, b] = [open(), open()]
    const usage = { limit: 'l', key: 'k', amount: 1 }
    await a.exchange([usage])
    await b.exchange([])
    // As at a time in an hour.
    const report = JSON.stringify(['l', 'k', 1])
    await redis.client.xadd('p:state:usage', `${Date.now() + 3_600_000}-0`, 'g', 'other', 'r', report)
    await b.exchange([])
    await a.exchange([usage])
    expect(await b.exchange([])).toMatchObject([{ usage: [usage] }])
    expect(await b.exchange([])).toEqual([])
  })

  it('keeps a bounded number of reports, and gives them in parts', async () => {
    const { open, redis } = await opened()
    const [a, b] = [open(), open()]
    const key = 'k'.repeat(1000)
    const usage = Array.from({ length: 1000 }, () => ({ limit: 'l', key, amount: 1 }))
    await Promise.all(Array.from({ length: 40 }, () => a.exchange(usage)))
    expect(await redis.client.xlen('p:state:usage')).toBeLessThan(1200)
    let [received, calls, last] = [0, 0, -1]
    for (; received !== last; calls++) {
      last = received
      received += (await b.exchange([])).length
    }
    expect(received).toBeGreaterThanOrEqual(1000)
    expect(calls).toBeGreaterThan(10)
    expect(await redis.client.pttl('p:state:usage')).toBeGreaterThan(0)
  })

  it('begins again where Redis has lost everything, or a part of it', async () => {
    const { open, redis } = await opened()
    const [a, b] = [open(), open()]
    const values = a.collection('c', bounds)
    const version = (await values.set('k', '', { value: 'v', owner: 'o' })) ?? ''
    await a.exchange([{ limit: 'l', key: 'before', amount: 1 }])
    await b.exchange([])
    await redis.client.flushall()
    // Redis numbers what comes by the millisecond, and has lost the last number of this one.
    const lost = Date.now()
    await eventually(() => Date.now() > lost + 1)
    expect(await values.set('k', version, { value: 'w', owner: 'o' })).toBeUndefined()
    expect(await values.set('k', '', { value: 'w', owner: 'o' })).toBeTruthy()
    await a.exchange([{ limit: 'l', key: 'after', amount: 1 }])
    expect((await b.exchange([])).flatMap(({ usage }) => usage.map(({ key }) => key))).toEqual(['after'])
    for (const name of ['entries', 'times', 'owned', 'numbers', 'bytes', 'total']) {
      await redis.client.del(`p:state:c:${name}`)
      for (let index = 0; index < 150; index++) {
        await values.set(`${name}${index}`, '', { value: 'v', owner: `${index % 2}` })
      }
      expect(await redis.client.hlen('p:state:c:entries')).toBeLessThanOrEqual(100)
    }
  })

  it('leaves nothing in Redis when it is not used', async () => {
    const { open, redis } = await opened()
    const values = open().collection('c', { ...bounds, maxAge: 30 })
    await values.set('k', '', { value: 'v', owner: 'o' })
    expect((await redis.client.keys('*')).every(key => key.startsWith('p:state:'))).toBe(true)
    await eventually(async () => (await redis.client.dbsize()) === 0)
  })

  it('says at once that Redis is away', async () => {
    const { redis } = await opened()
    await redis.kill()
    const away = redis.client.duplicate({ enableOfflineQueue: false, maxRetriesPerRequest: 0 })
    away.on('error', () => {})
    const lone = new RedisState({ redis: away, config: { url: '', prefix: 'p:' } })
    await expect(lone.collection('c', bounds).get('k')).rejects.toThrow()
    await expect(lone.exchange([])).rejects.toThrow()
    away.disconnect()
  })
})
