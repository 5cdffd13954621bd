import { afterEach, beforeEach, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { CallFailed, type News, openCoordinatorCalls } from '../../src/storage/coordinator-calls.js'
import { openSharedRedis } from '../../src/storage/shared-redis.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })

describeWith('redis-server', 'calls of gateways to their coordinator', () => {
  let server: RedisServer
  let closes: (() => Promise<void>)[] = []
  beforeEach(async () => {
    server = await startRedis()
  })
  afterEach(async () => {
    await Promise.all(closes.map(close => close()))
    closes = []
    await server.stop()
  })

  /** A gateway that is the coordinator while Redis has its token. */
  const start = async (name: string, timeout = 20_000) => {
    const shared = await openSharedRedis({ url: server.url, prefix: 'test:' }, log)
    const news: News[] = []
    let reconnections = 0
    const coordinator = { key: 'test:coordinator', token: undefined as string | undefined }
    const calls = await openCoordinatorCalls({
      ...{ shared, coordinator, name: 'things', timeout, log },
      onNews: one => news.push(one),
      onReconnected: () => {
        reconnections++
      },
    })
    closes.push(async () => {
      await calls.close()
      await shared.close()
    })
    return {
      ...{ calls, news, coordinator },
      reconnections: () => reconnections,
      lead: async (handle: (body: string) => Promise<string>): Promise<void> => {
        await server.client.set('test:coordinator', name)
        coordinator.token = name
        void calls.serve({ token: name, handle })
      },
    }
  }
  const calls = () => server.client.xlen('test:things:calls')

  it('are each answered, however many there are, and leave nothing behind', async () => {
    const [a, b, c] = [await start('a'), await start('b'), await start('c')]
    await a.lead(async body => body.toUpperCase())
    const bodies = Array.from({ length: 1000 }, (_, index) => `call ${index} ${'ü'.repeat(index % 100)}`)
    const answers = await Promise.all([b, c].flatMap(gateway => bodies.map(body => gateway.calls.call(body))))
    expect(answers).toEqual([...bodies, ...bodies].map(body => body.toUpperCase()))
    expect(await calls()).toBe(0)
    await eventually(async () => {
      const keys = await server.client.keys('test:things:answers:*')
      return (await Promise.all(keys.map(key => server.client.xlen(key)))).every(length => length === 0)
    })
    for (const key of await server.client.keys('test:things:answers:*')) {
      expect(await server.client.pttl(key)).toBeGreaterThan(0)
    }
  })

  it('wait for a coordinator, and for the next one if it ends in the middle', async () => {
    const [a, b, c] = [await start('a'), await start('b'), await start('c')]
    const answer = c.calls.call('x')
    await eventually(async () => (await calls()) === 1)
    let fail = (_: Error): void => {}
    let isAsked = false
    await a.lead(() => {
      isAsked = true
      return new Promise((_, reject) => {
        fail = reject
      })
    })
    await eventually(() => isAsked)
    a.coordinator.token = undefined
    a.calls.stopServing()
    await b.lead(async body => `${body} of b`)
    fail(new Error('it is no coordinator any more'))
    expect(await answer).toBe('x of b')
  })

  it('are not answered by a former coordinator that does not know it', async () => {
    const [a, b] = [await start('a'), await start('b')]
    await a.lead(async () => 'of a')
    await server.client.set('test:coordinator', 'another')
    const answer = b.calls.call('x')
    await eventually(async () => (await calls()) === 1)
    await b.lead(async () => 'of b')
    expect(await answer).toBe('of b')
  })

  it('fail if they cannot be answered, in time or at all', async () => {
    const [a, b] = [await start('a'), await start('b', 300)]
    await expect(b.calls.call('nobody is there')).rejects.toThrow('does not answer')
    await eventually(async () => (await calls()) === 0)
    await a.lead(() => Promise.reject(new Error('no')))
    await expect(b.calls.call('x')).rejects.toThrow(CallFailed)
    await server.kill()
    await expect(b.calls.call('x')).rejects.toThrow(CallFailed)
  })

  it('are bounded in number and length', async () => {
    const b = await start('b')
    await expect(b.calls.call('x'.repeat(17 * 1024 ** 2))).rejects.toThrow('too many')
    const outcomes = Promise.allSettled(Array.from({ length: 10_001 }, () => b.calls.call('x')))
    await eventually(async () => (await calls()) === 100)
    await b.calls.close()
    const reasons = (await outcomes).map(outcome => (outcome.status === 'rejected' ? outcome.reason.message : ''))
    expect(reasons.filter(reason => reason.includes('too many'))).toHaveLength(1)
    expect(reasons.filter(reason => reason.includes('ends'))).toHaveLength(10_000)
  })

  it('have news for all others, in order, and say where some are missing', async () => {
    const [a, b] = [await start('a'), await start('b')]
    await eventually(() => b.reconnections() === 1)
    await a.lead(async () => '')
    for (let index = 0; index < 300; index++) a.calls.tell(String(index))
    await eventually(() => b.news.length === 300)
    expect(b.news.map(({ body }) => Number(body))).toEqual(Array.from({ length: 300 }, (_, index) => index))
    expect(b.news.filter(({ isNext }) => !isNext)).toHaveLength(1)
    expect(a.news).toEqual([])
    const big = 'x'.repeat(1024 ** 2)
    for (let index = 0; index < 10; index++) a.calls.tell(big)
    await eventually(() => b.news.length === 310)
    expect(await server.client.xlen('test:things:news')).toBeLessThanOrEqual(6)
    await server.client.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await eventually(() => b.reconnections() === 2)
    await b.lead(async () => '')
    a.coordinator.token = undefined
    a.calls.stopServing()
    b.calls.tell('of b')
    await eventually(() => a.news.length > 0)
    expect(a.news.at(-1)).toEqual({ body: 'of b', isNext: false })
    expect(await server.client.xlen('test:things:news')).toBe(1)
  })
})
