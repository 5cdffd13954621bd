import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startCuttingProxy } from '../helpers/cutting-proxy.js'
import { freePorts } from '../helpers/free-ports.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

describeWith(['redis-server', 'mosquitto'], 'gateways that share Redis', () => {
  let [redis, broker, directory] = [{} as RedisServer, {} as Mosquitto, '']
  let redisPort = 0
  let prefixes = 0

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-state-'))
    const [port = 0] = await freePorts(1)
    redisPort = port
    redis = await startRedis(['--bind', '127.0.0.1', '--port', `${port}`])
    broker = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true'])
    await writeFile(join(directory, 'users'), `alice:${bcrypt.hashSync('right', 4)}\n`)
  })
  afterAll(async () => {
    await broker.stop()
    await redis.stop()
    await rm(directory, { recursive: true, force: true })
  })

  /** Starts gateways with one prefix; one of them reads the broker. @param urls of Redis, one for each gateway */
  const start = async (config: ConfigInput = {}, urls = [redis.url, redis.url]): Promise<TestGateway[]> => {
    const prefix = `p${prefixes++}:`
    const gateways = await Promise.all(
      urls.map(async url => {
        const push = { topics: ['#'], journal: { redis: { url, prefix } }, presence: { messages: false, grace: '1ms' } }
        const place = { https: { port: 'off' as const }, mqtt: { port: 'off' as const }, push }
        const all = { ...place, broker: `mqtt://127.0.0.1:${broker.port}`, ...config }
        const gateway = await startTestGateway(all)
        onTestFinished(() => gateway.close())
        return gateway
      }),
    )
    const subscriptions = () => redis.client.hget(`${prefix}journal`, 'subscriptions')
    await eventually(async () => (await subscriptions())?.includes('#') === true)
    return gateways
  }
  const two = async (config?: ConfigInput, urls?: string[]): Promise<[a: string, b: string]> => {
    const [a, b] = await start(config, urls)
    return [a?.urls.http ?? '', b?.urls.http ?? '']
  }
  /** An address of Redis that one gateway uses. */
  const link = async () => {
    let isAway = false
    const proxy = await startCuttingProxy(() => (isAway ? 1 : redisPort))
    onTestFinished(() => proxy.close())
    return {
      url: `redis://127.0.0.1:${proxy.port}`,
      leave: () => {
        isAway = true
        for (let pick = 0; pick < 1; pick += 0.05) proxy.cut(pick)
      },
      comeBack: () => {
        isAway = false
      },
    }
  }
  const basic = (password: string) => ({ authorization: `Basic ${btoa(`alice:${password}`)}` })
  const passwords = () => ({ access: { htpasswd: join(directory, 'users') } })

  it('accept a ticket once, whichever of them issued it', async () => {
    const [a, b] = await two(passwords())
    const issue = async (): Promise<string> => {
      const response = await fetch(`${a}/v1/tickets`, { method: 'POST', headers: basic('right') })
      return ((await response.json()) as { ticket: string }).ticket
    }
    const redeem = async (url: string, ticket: string) => (await fetch(`${url}/v1/presence?ticket=${ticket}`)).status
    const ticket = await issue()
    expect([await redeem(b, ticket), await redeem(a, ticket), await redeem(b, ticket)]).toEqual([200, 401, 401])
    const raced = await issue()
    const results = await Promise.all([a, b, a, b].map(url => redeem(url, raced)))
    expect(results.sort()).toEqual([200, 401, 401, 401])
  })

  it('say that tickets are unavailable while Redis is away, and go on when it is back', async () => {
    const { url, leave, comeBack } = await link()
    const [a, b] = await two(passwords(), [redis.url, url])
    const issueAt = (url: string) => fetch(`${url}/v1/tickets`, { method: 'POST', headers: basic('right') })
    const { ticket } = (await (await issueAt(a)).json()) as { ticket: string }
    leave()
    await eventually(async () => (await issueAt(b)).status === 503)
    const refused = await fetch(`${b}/v1/presence?ticket=${ticket}`)
    expect([refused.status, await refused.json()]).toMatchObject([503, { reason: 'identity-unavailable' }])
    expect((await issueAt(a)).status).toBe(201)
    comeBack()
    await eventually(async () => (await issueAt(b)).status === 201)
    expect((await fetch(`${b}/v1/presence?ticket=${ticket}`)).status).toBe(200)
  })

  it('publish a request with an Idempotency-Key once, whichever of them it is repeated at', async () => {
    const { url, leave, comeBack } = await link()
    const [a, b] = await two({}, [redis.url, url])
    const publish = async (at: string, key: string, body = 'x') => {
      const headers = { 'idempotency-key': key }
      const response = await fetch(`${at}/v1/publish?topic=t`, { method: 'POST', headers, body })
      const { id, reason } = (await response.json()) as { id?: string; reason?: string }
      return { status: response.status, id, reason, replayed: response.headers.get('idempotency-replayed') }
    }
    const published = async (body: string): Promise<number> => {
      const response = await fetch(`${a}/v1/poll?topic=t&last=1000&timeout=0`)
      const { events } = (await response.json()) as { events: { payload: string }[] }
      return events.filter(({ payload }) => payload === body).length
    }
    for (const at of [a, b]) await eventually(async () => (await publish(at, at, 'ready')).status === 201)
    const first = await publish(a, 'k')
    expect(await publish(b, 'k')).toEqual({ ...first, replayed: 'true' })
    expect((await publish(b, 'k', 'other')).reason).toBe('idempotency-mismatch')
    const raced = await Promise.all([a, b, a, b, a, b].map(at => publish(at, 'raced', 'raced')))
    expect(raced.every(({ status }) => status === 201 || status === 409)).toBe(true)
    const { id } = await publish(b, 'raced', 'raced')
    expect(raced.filter(result => result.status === 201).every(result => result.id === id)).toBe(true)
    leave()
    await eventually(async () => (await publish(b, 'k')).reason === 'journal-unavailable')
    comeBack()
    await eventually(async () => (await publish(b, 'k')).status === 201)
    expect(await publish(b, 'k')).toEqual({ ...first, replayed: 'true' })
    expect([await published('x'), await published('raced'), await published('other')]).toEqual([1, 1, 0])
  })

  it('count the requests of an address at all of them', async () => {
    const [a, b] = await two({ limits: { requestsPerSecond: 1, requestsBurst: 400 } })
    const ask = async (at: string) => (await fetch(`${at}/v1/presence`)).status
    const atA = await Promise.all(Array.from({ length: 420 }, () => ask(a)))
    expect(atA).toContain(429)
    let count = 0
    await eventually(async () => {
      count++
      return (await ask(b)) === 429
    })
    expect(count).toBeLessThan(400)
  })

  it('accept ten wrong passwords of an address in all', async () => {
    const [a, b] = await two(passwords())
    const guess = async (at: string, index: number) =>
      (await fetch(`${at}/v1/presence`, { headers: basic(`wrong ${index}`) })).status
    const atOnce = await Promise.all(Array.from({ length: 30 }, (_, index) => guess(index % 2 ? a : b, index)))
    expect(atOnce.filter(status => status === 401)).toHaveLength(10)
    expect(atOnce.filter(status => status === 429)).toHaveLength(20)
    expect([await guess(a, 31), await guess(b, 32)]).toEqual([429, 429])
  })

  describe('have one queue for each handle of RRR', () => {
    const ask = async (at: string, handle: string, signal?: AbortSignal) => {
      const response = await fetch(`${at}/rrr/?handle=${handle}`, signal && { signal })
      const { content, reason } = (await response.json()) as { content?: string; reason?: string }
      return { status: response.status, content, reason }
    }
    const publish = async (at: string, handle: string, bodies: readonly string[]): Promise<void> => {
      const messages = bodies.map(payload => ({ topic: `push/${handle}`, payload }))
      const headers = { 'content-type': 'application/json' }
      const send = () => fetch(`${at}/v1/publish`, { method: 'POST', headers, body: JSON.stringify({ messages }) })
      let response = await send()
      // Nothing is published before a gateway has subscribed.
      while (response.status === 503) response = await send()
      expect(response.status).toBe(201)
    }
    /** Open requests of the gateway. */
    const listeners = async (at: string): Promise<number> => {
      const metrics = await (await fetch(`${at}/metrics`)).text()
      return Number(/^mqway_push_listeners (\d+)/m.exec(metrics)?.[1])
    }
    /** Asks, and resolves when the request is the newest one at all gateways. */
    const begin = async (at: string, signal?: AbortSignal) => {
      const newest = async () => {
        const stored = await redis.client.hget(`p${prefixes - 1}:state:handles:entries`, '1')
        return /"request":"([^"]+)"/.exec(stored ?? '')?.[1]
      }
      const before = await newest()
      const answer = ask(at, '1', signal).catch(() => undefined)
      await eventually(async () => (await newest()) !== before)
      return { answer }
    }
    const texts = Array.from({ length: 60 }, (_, index) => `m${index}`)

    it('from which a client gets each message once, in order, wherever it asks next', async () => {
      const [a, b] = await two({ compat: { rrr: { wait: '200ms' } } })
      const publishing = publish(b, '1', texts)
      const contents: string[] = []
      for (let index = 0; contents.length < texts.length; index++) {
        const { content = '' } = await ask(index % 3 === 0 ? a : b, '1')
        if (content !== '') contents.push(content)
      }
      await publishing
      expect(contents).toEqual(texts)
      for (const at of [a, b]) expect((await ask(at, '1')).content).toBe('')
    })

    it('of which two clients get each message once together', async () => {
      const [a, b] = await two({ compat: { rrr: { wait: '100ms' } } })
      const contents: string[] = []
      const poll = async (at: string): Promise<void> => {
        while (contents.length < texts.length) {
          const { content = '' } = await ask(at, '1')
          if (content !== '') contents.push(content)
        }
      }
      await Promise.all([publish(a, '1', texts), poll(a), poll(b)])
      expect([...contents].sort()).toEqual([...texts].sort())
    })

    it('whose messages go to the newest request, and to the next where that was left', async () => {
      const [a, b] = await two({ compat: { rrr: { wait: '60s' } } })
      await publish(a, '1', ['first'])
      expect((await ask(b, '1')).content).toBe('first')
      const leaving = new AbortController()
      const older = await begin(a)
      const newer = await begin(b)
      await publish(a, '1', ['second'])
      expect(await newer.answer).toMatchObject({ content: 'second' })
      expect(await older.answer).toMatchObject({ content: '' })
      const abandoned = await begin(b, leaving.signal)
      leaving.abort()
      await abandoned.answer
      await eventually(async () => (await listeners(b)) === 0)
      await publish(a, '1', ['third'])
      expect((await ask(a, '1')).content).toBe('third')
    })

    it('and say that it is unavailable while Redis is away', async () => {
      const { url, leave, comeBack } = await link()
      const [a, b] = await two({ compat: { rrr: { wait: '100ms' } } }, [redis.url, url])
      await publish(a, '1', ['first', 'second'])
      expect((await ask(a, '1')).content).toBe('first')
      leave()
      await eventually(async () => (await ask(b, '1')).reason === 'journal-unavailable')
      comeBack()
      let answer = await ask(b, '1')
      // Its copy of the journal may be read later than the position.
      while (!answer.content) answer = await ask(b, '1')
      expect(answer.content).toBe('second')
    })
  })
})
