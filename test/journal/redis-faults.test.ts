import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { type Event, isGapMarker } from '../../src/journal/event.js'
import { type Journal, resolveCursor } from '../../src/journal/journal.js'
import { openRedisJournal, type RedisJournal } from '../../src/journal/redis-journal.js'
import type { RedisConfig } from '../../src/storage/redis.js'
import { message, readAll, wide } from '../contracts/journal.js'
import { freePorts } from '../helpers/free-ports.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

/** A replica need not wait for others. */
const soon = ['--repl-diskless-sync-delay', '0']

const log = createLog({ level: 'silent', format: 'json' })

describeWith(['redis-server', 'openssl'], 'journals that share Redis', () => {
  let server: RedisServer
  const journals: RedisJournal[] = []
  const open = async (bounds = {}, place: Partial<RedisConfig> = {}): Promise<RedisJournal> => {
    const config = { url: server.url, prefix: 'test:', ...place }
    const journal = await openRedisJournal({ config, bounds: { ...wide, ...bounds }, log })
    journals.push(journal)
    return journal
  }
  const texts = (events: readonly Event[]) => events.map(({ payload }) => payload.toString())
  /** Collects what is announced, and resolves when a test is true. */
  const watch = (journal: Journal) => {
    const events: Event[] = []
    let check = (): void => {}
    journal.watch(more => {
      events.push(...more)
      check()
    })
    const until = (test: () => boolean): Promise<void> =>
      new Promise(resolve => {
        check = () => {
          if (test()) resolve()
        }
        check()
      })
    return { events, until }
  }
  /** Appends until it is accepted, as the reader of a broker does. */
  const insist = async (journal: Journal, text: string): Promise<Event> => {
    const sent = message('t', text)
    for (;;) {
      const event = await journal.append(sent).catch(() => undefined)
      if (event) return event
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }

  beforeEach(async () => {
    server = await startRedis(['--appendonly', 'yes', '--appendfsync', 'always'])
  })
  afterEach(async () => {
    await Promise.all(journals.splice(0).map(journal => journal.close()))
    await server.stop()
  })

  it('have one numbering, and the same events in the same order', async () => {
    const [a, b] = [await open(), await open()]
    const [atA, atB] = [watch(a), watch(b)]
    const appended = await Promise.all(
      Array.from({ length: 400 }, (_, index) =>
        (index % 2 ? a : b).append(message('t', `${index}`, { retain: index === 7 })),
      ),
    )
    await Promise.all([atA.until(() => atA.events.length === 400), atB.until(() => atB.events.length === 400)])
    expect(atA.events).toEqual(atB.events)
    expect(atA.events.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 400 }, (_, index) => index + 1))
    expect(new Set(appended.map(({ id }) => id)).size).toBe(400)
    expect(resolveCursor(b, appended[0]?.id ?? '')).toEqual({
      after: appended[0]?.sequence,
      known: appended[0]?.sequence,
    })
    expect(await readAll(b, ['t'], 0)).toEqual(await readAll(a, ['t'], 0))
    const retained: Event[] = []
    for await (const batch of b.retained(['t'], { after: 0, through: b.head })) retained.push(...batch)
    expect(texts(retained)).toEqual(['7'])
  })

  it('refuse within seconds while Redis is stopped, and go on without a loss or a repetition', async () => {
    const [a, b] = [await open(), await open()]
    const atB = watch(b)
    await a.append(message('t', 'before'))
    server.pause()
    const start = performance.now()
    const sent = message('t', 'during')
    await expect(a.append(sent)).rejects.toMatchObject({ reason: 'unavailable' })
    expect(performance.now() - start).toBeLessThan(6000)
    expect(a.failure).toBeDefined()
    await expect(a.append(message('t', 'refused'))).rejects.toMatchObject({ reason: 'unavailable' })
    server.resume()
    // The first attempt may have been executed after the pause.
    for (let event: Event | undefined; !event; ) event = await a.append(sent).catch(() => undefined)
    await insist(a, 'after')
    await atB.until(() => atB.events.length >= 3)
    expect(texts(atB.events)).toEqual(['before', 'during', 'after'])
    expect(texts(await readAll(a, ['#'], 0))).toEqual(['before', 'during', 'after'])
  }, 20_000)

  it('lose nothing when Redis ends and starts again with its file', async () => {
    const [a, b] = [await open(), await open()]
    const atB = watch(b)
    const ids: string[] = []
    for (let round = 0; round < 3; round++) {
      for (let index = 0; index < 20; index++) ids.push((await insist(a, `${round}/${index}`)).id)
      await server.kill()
      await server.start()
    }
    ids.push((await insist(a, 'end')).id)
    await atB.until(() => atB.events.some(({ payload }) => payload.toString() === 'end'))
    expect(atB.events.map(({ id }) => id)).toEqual(ids)
    expect(new Set(texts(atB.events)).size).toBe(61)
  }, 20_000)

  it('turn a lost end of the journal into a gap of a new epoch, never into other events with the same ids', async () => {
    const [a, b] = [await open(), await open()]
    const [atA, atB] = [watch(a), watch(b)]
    for (const text of ['1', '2', '3']) await a.append(message('t', text))
    await atB.until(() => atB.events.length === 3)
    const cursor = atB.events[2]?.id ?? ''
    // As a replica that did not get the last two, and has had others since.
    await server.client
      .multi()
      .client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      .xdel('test:events', '2-0', '3-0')
      .hset('test:journal', 'head', '1')
      .exec()
    await atA.until(() => atA.events.some(isGapMarker))
    await atB.until(() => atB.events.some(isGapMarker))
    const { id } = await insist(a, '4')
    await atB.until(() => texts(atB.events).includes('4'))
    expect(resolveCursor(b, cursor).gap).toBe('other-epoch')
    expect(resolveCursor(b, id).gap).toBeUndefined()
    expect(a.epoch).toBe(b.epoch)
    expect(texts(await readAll(b, ['t'], 0)).filter(text => text !== '')).toEqual(['1', '4'])
    const numbers = atB.events.map(({ sequence }) => sequence)
    expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other))
  }, 20_000)

  it('begin a new epoch when Redis has lost everything', async () => {
    const a = await open()
    const atA = watch(a)
    const { id } = await a.append(message('t', '1', { retain: true }))
    await server.client.flushall()
    await a.fields.set('name', 'value')
    expect(await a.fields.get('name')).toBe('value')
    await server.client.multi().client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes').flushall().exec()
    await atA.until(() => atA.events.some(isGapMarker))
    const next = await insist(a, '2')
    expect(next.sequence).toBeGreaterThan(1)
    expect(resolveCursor(a, id).gap).toBe('other-epoch')
    expect(texts(await readAll(await open(), ['t'], 0)).filter(text => text !== '')).toEqual(['2'])
  }, 20_000)

  it('adopt the bounds and rules of the gateway that started last', async () => {
    const a = await open()
    await a.append(message('noisy/x', '0'))
    const rules = [{ filters: ['noisy/#'], maxEvents: 5, maxBytes: wide.maxBytes, maxAge: wide.maxAge }]
    const b = await open({ rules })
    for (let index = 0; index < 20; index++) await insist(a, String(index))
    for (let index = 0; index < 20; index++) await a.append(message('noisy/x', String(index)))
    const atB = watch(b)
    await a.append(message('last'))
    await atB.until(() => atB.events.at(-1)?.topic === 'last')
    await Promise.all([a.trim(), b.trim()])
    for (const journal of [a, b]) {
      expect(await readAll(journal, ['noisy/x'], 21)).toHaveLength(5)
      expect(journal.lost(['noisy/x'], 21)).toBeDefined()
      expect(journal.lost(['t'], 0)).toBeUndefined()
    }
  })

  it('keep what would be evicted by bounds of before, once others are adopted', async () => {
    const a = await open({ maxEvents: 5 })
    for (let index = 0; index < 20; index++) await a.append(message('t', String(index)))
    const b = await open()
    await a.append(message('t', 'last'))
    await a.trim()
    await b.catchUp()
    expect(await readAll(b, ['t'], 0)).toHaveLength(21)
    expect(await server.client.xlen('test:events')).toBe(21)
  })

  it('append only with the token of the lease', async () => {
    const [a, b] = [await open(), await open()]
    expect([await a.hold('one', 60_000, 'take'), await b.hold('two', 60_000, 'take')]).toEqual([true, false])
    const [first, second] = [await a.beginTerm('one'), await b.beginTerm('two')]
    await first.append({ ...message('t', 'x', { qos: 1 }), messageId: 7 } as never)
    await expect(second.append(message('t'))).rejects.toMatchObject({ reason: 'unavailable' })
    await expect(b.append(message('t'))).rejects.toMatchObject({ reason: 'unavailable' })
    // The lease ended while its holder was stopped.
    await a.release('one')
    expect(await a.hold('one', 60_000, 'renew')).toBe(false)
    expect(await b.hold('two', 60_000, 'take')).toBe(true)
    await expect(first.append(message('t'))).rejects.toMatchObject({ reason: 'unavailable' })
    const taken = await b.beginTerm('two')
    expect([...taken.deliveries.keys()]).toEqual([7])
    taken.acknowledged(7)
    expect((await taken.append(message('t'))).sequence).toBe(2)
    expect(await server.client.hlen('test:deliveries')).toBe(0)
  })

  it('forget an acknowledged packet identifier also when the batch that says so has to be sent again', async () => {
    const a = await open()
    await a.hold('one', 60_000, 'take')
    const term = await a.beginTerm('one')
    await term.append({ ...message('t', 'x', { qos: 1 }), messageId: 7 } as never)
    term.acknowledged(7)
    // Its rules are those of all, so the next batch of the other one is refused at first.
    await open({ maxEvents: wide.maxEvents + 1 })
    await term.append(message('t'))
    expect(await server.client.hgetall('test:deliveries')).toEqual({})
  })

  it('take no refusal of Redis for one of now after another gateway has begun to read', async () => {
    const a = await open()
    await a.hold('one', 60_000, 'take')
    const term = await a.beginTerm('one')
    await server.client.config('SET', 'maxmemory', '1')
    await expect(term.append(message('t'))).rejects.toMatchObject({ reason: 'unavailable' })
    expect(a.failure).toContain('OOM')
    term.close()
    expect(a.failure).toBeUndefined()
  })

  it('do not read their own events back while only they may append, and read those of the next one', async () => {
    const [a, b] = [await open(), await open()]
    const atA = watch(a)
    const reads = async (): Promise<number> =>
      Number(/cmdstat_xread:calls=(\d+)/.exec(await server.client.info('commandstats'))?.[1])
    await a.hold('one', 60_000, 'take')
    const term = await a.beginTerm('one')
    const until = b.head + 200
    const atB = watch(b)
    const before = await reads()
    for (let left = 200; left > 0; left--) await term.append(message('t', 'by a'))
    await atB.until(() => b.head === until)
    // One for each event at the other one.
    expect((await reads()) - before).toBeLessThan(300)
    // The lease is another's, and its former holder has not noticed.
    await a.release('one')
    await b.hold('two', 60_000, 'take')
    await (await b.beginTerm('two')).append(message('t', 'by b'))
    await atA.until(() => atA.events.at(-1)?.payload.toString() === 'by b')
    expect(atA.events.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 201 }, (_, index) => index + 1))
  })

  it('refuse a Redis that may evict, keys of others, and a wrong password', async () => {
    await server.client.set('test:journal', 'theirs')
    await expect(open()).rejects.toThrow('test:journal in Redis is not of this version of mqway')
    expect(await server.client.get('test:journal')).toBe('theirs')
    await server.client.del('test:journal')
    await server.client.config('SET', 'maxmemory', '100mb', 'maxmemory-policy', 'allkeys-lru')
    await expect(open()).rejects.toThrow('set its maxmemory-policy to noeviction instead of allkeys-lru')
    await server.client.config('SET', 'maxmemory-policy', 'noeviction')
    await server.client.acl('SETUSER', 'default', 'on', 'nopass', '+@all', '-xadd')
    await expect(open()).rejects.toThrow('Redis lacks the permission for a command')
    expect(await server.client.exists('test:journal')).toBe(0)
    await server.client.acl('SETUSER', 'default', '+@all')
    await server.client.config('SET', 'requirepass', 'secret')
    await expect(open()).rejects.toThrow('see username and passwordFile')
  })

  it('says that Redis has no memory left, and goes on when it has', async () => {
    const a = await open()
    await a.append(message('t', '1'))
    await server.client.config('SET', 'maxmemory', '1')
    await expect(a.append(message('t', '2'))).rejects.toMatchObject({ reason: 'unavailable' })
    expect(a.failure).toContain('OOM')
    await server.client.config('SET', 'maxmemory', '0')
    expect((await insist(a, '3')).sequence).toBe(2)
    expect(a.failure).toBeUndefined()
  })

  it('are not available while their Redis is a replica, however often they connect again', async () => {
    const a = await open()
    await a.append(message('t', '1'))
    await server.client.replicaof('127.0.0.1', 1)
    await expect(a.append(message('t'))).rejects.toMatchObject({ reason: 'unavailable' })
    const connections = async (): Promise<number> =>
      Number(/total_connections_received:(\d+)/.exec(await server.client.info('stats'))?.[1])
    const before = await connections()
    const failures = new Set<string | undefined>()
    await eventually(async () => {
      failures.add(a.failure)
      return (await connections()) > before + 1
    })
    expect([...failures].filter(failure => !failure?.includes('READONLY'))).toEqual([])
    await server.client.replicaof('NO', 'ONE')
    expect((await insist(a, '2')).sequence).toBe(2)
  }, 20_000)

  it('go on at another primary behind the same address, once theirs is a replica', async () => {
    const [primaryPort = 0, replicaPort = 0] = await freePorts(2)
    const at = (port: number) => ['--bind', '127.0.0.1', '--port', `${port}`, ...soon]
    const primary = await startRedis(at(primaryPort))
    const replica = await startRedis([...at(replicaPort), '--replicaof', '127.0.0.1', `${primaryPort}`])
    let target = primaryPort
    const relay = createServer(socket => {
      const upstream = connect(target, '127.0.0.1')
      for (const each of [socket, upstream]) each.on('error', () => {})
      socket.pipe(upstream).pipe(socket)
    }).listen(0, '127.0.0.1')
    await once(relay, 'listening')
    const address = relay.address()
    const a = await open({}, { url: `redis://127.0.0.1:${typeof address === 'object' ? address?.port : ''}` })
    await a.append(message('t', '1'))
    await eventually(async () => (await replica.client.xlen('test:events')) === 1)
    target = replicaPort
    await replica.client.replicaof('NO', 'ONE')
    await primary.client.replicaof('127.0.0.1', replicaPort)
    expect((await insist(a, '2')).sequence).toBe(2)
    expect(await replica.client.xlen('test:events')).toBe(2)
    await Promise.all(journals.splice(0).map(journal => journal.close()))
    relay.close()
    await Promise.all([primary, replica].map(each => each.stop()))
  }, 20_000)

  it('go on at the replica that Sentinel promotes', async () => {
    const [primaryPort = 0, replicaPort = 0, sentinelPort = 0] = await freePorts(3)
    const at = (port: number) => ['--bind', '127.0.0.1', '--port', `${port}`, ...soon]
    const primary = await startRedis(at(primaryPort))
    const replica = await startRedis([...at(replicaPort), '--replicaof', '127.0.0.1', `${primaryPort}`])
    const sentinel = await startRedis(
      ['--bind', '127.0.0.1', '--port', `${sentinelPort}`],
      [
        `sentinel monitor main 127.0.0.1 ${primaryPort} 1`,
        'sentinel down-after-milliseconds main 500',
        'sentinel failover-timeout main 3000',
      ],
    )
    const place = { url: 'redis://main', sentinel: { name: 'main', addresses: [`127.0.0.1:${sentinelPort}`] } }
    const [a, b] = [await open({}, place), await open({}, place)]
    const atB = watch(b)
    for (const text of ['1', '2', '3']) await a.append(message('t', text))
    await eventually(async () => (await replica.client.xlen('test:events')) === 3)
    const knownReplicas = async (): Promise<unknown> => sentinel.client.call('SENTINEL', 'REPLICAS', 'main')
    await eventually(async () => JSON.stringify(await knownReplicas()).includes(`"${replicaPort}"`))
    await primary.kill()
    await insist(a, '4')
    await atB.until(() => texts(atB.events).includes('4'))
    expect(texts(atB.events)).toEqual(['1', '2', '3', '4'])
    expect((await replica.client.info('replication')).includes('role:master')).toBe(true)
    await Promise.all(journals.splice(0).map(journal => journal.close()))
    await Promise.all([primary, replica, sentinel].map(each => each.stop()))
  }, 40_000)

  it('connect over TLS with a password, and only to a server that the authority has signed', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'redis-tls-'))
    const file = (name: string): string => join(directory, name)
    const [cert, key, passwordFile] = [file('cert.pem'), file('key.pem'), file('password')]
    const extension = ['-addext', 'subjectAltName=DNS:localhost']
    const files = ['-keyout', key, '-out', cert, '-subj', '/CN=localhost', ...extension]
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', ...files], {
      stdio: 'ignore',
    })
    await writeFile(passwordFile, 'secret\n')
    const [port = 0] = await freePorts(1)
    const options = [
      '--tls-port',
      `${port}`,
      '--tls-cert-file',
      cert,
      '--tls-key-file',
      key,
      '--tls-auth-clients',
      'no',
    ]
    const secure = await startRedis([...options, '--requirepass', 'secret'])
    const place = { url: `rediss://localhost:${port}`, passwordFile }
    expect((await (await open({}, { ...place, ca: cert })).append(message('t'))).sequence).toBe(1)
    await expect(open({}, place)).rejects.toThrow('certificate')
    await Promise.all(journals.splice(0).map(journal => journal.close()))
    await secure.stop()
    await rm(directory, { recursive: true })
  }, 30_000)
})
