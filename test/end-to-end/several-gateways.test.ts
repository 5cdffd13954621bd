import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import { type CuttingProxy, startCuttingProxy } from '../helpers/cutting-proxy.js'
import { type Listen, pushTransports } from '../helpers/event-clients.js'
import { freePorts } from '../helpers/free-ports.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { type ServingProgram, serving } from '../helpers/program.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const listenOverSse = pushTransports['an event stream'] as Listen

describeWith(['redis-server', 'mosquitto'], 'two gateways before one broker, with one journal in Redis', () => {
  let [redis, broker, directory] = [{} as RedisServer, {} as Mosquitto, '']
  let redisPort = 0
  const programs: ServingProgram[] = []
  const urlsOf = (program: ServingProgram) => ({ http: program.url('http'), https: program.url('https') })

  const start = async ({
    url = redis.url,
    brokerPort = broker.port,
    clientId = undefined as string | undefined,
  } = {}): Promise<ServingProgram> => {
    const file = join(directory, `${programs.length}.json`)
    const config = {
      ...{ http: { port: 0 }, https: { port: 'off' }, mqtt: { port: 'off' }, data: 'none' },
      broker: `mqtt://127.0.0.1:${brokerPort}`,
      push: { topics: ['news/#'], journal: { redis: { url } }, presence: { messages: false }, clientId },
    }
    await writeFile(file, JSON.stringify(config))
    const program = await serving(['--config', file], directory)
    programs.push(program)
    return program
  }
  const publish = (program: ServingProgram, body: string) =>
    fetch(`${program.url('http')}/v1/publish?topic=news/x`, { method: 'POST', body })
  /** Publishes at the broker without a pause, until it is stopped. @returns what the broker has acknowledged */
  const publishSteadily = async () => {
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker.port}`)
    const acknowledged: string[] = []
    let isOver = false
    const running = (async () => {
      for (let index = 0; !isOver; index += 10) {
        // Ten in flight: some are not acknowledged to the gateway when it ends.
        const payloads = Array.from({ length: 10 }, (_, more) => `m${index + more}`)
        await Promise.all(payloads.map(payload => client.publishAsync('news/x', payload, { qos: 1 })))
        acknowledged.push(...payloads)
      }
    })()
    return {
      acknowledged,
      stop: async () => {
        isOver = true
        await running
        await client.endAsync()
      },
    }
  }

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-several-'))
    const [port = 0] = await freePorts(1)
    redisPort = port
    // With `everysec`, it writes nothing while the disk is slow, and a killed one loses that.
    const file = ['--appendonly', 'yes', '--appendfsync', 'always']
    redis = await startRedis([...file, '--bind', '127.0.0.1', '--port', `${redisPort}`])
    broker = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', 'max_queued_messages 100000'])
  })
  afterEach(async () => {
    await Promise.all(programs.splice(0).map(program => program.stop('SIGKILL')))
    await broker.stop()
    await redis.stop()
    await rm(directory, { recursive: true, force: true })
  })

  it('continue each other’s event streams, and publish at the broker', async () => {
    const [a, b] = [await start(), await start()]
    await eventually(async () => (await publish(a, 'first')).status === 201)
    const atA = await listenOverSse(urlsOf(a), { topics: ['news/#'] })
    const published = await publish(b, 'second')
    expect(published.status).toBe(201)
    await eventually(() => atA.events.length === 1)
    const { id } = (await published.json()) as { id: string }
    expect(atA.events[0]).toMatchObject({ id })
    await atA.close()
    for (const body of ['third', 'fourth']) expect((await publish(a, body)).status).toBe(201)
    const atB = await listenOverSse(urlsOf(b), { topics: ['news/#'], cursor: atA.cursor ?? id })
    await eventually(() => atB.events.length === 2)
    expect(atB.events.map(({ payload }) => payload.toString())).toEqual(['third', 'fourth'])
    expect(atB.gaps).toEqual([])
  }, 30_000)

  type Fault = (reader: ServingProgram, cut: Record<'redis' | 'broker', CuttingProxy>) => void | Promise<void>
  const faults: [name: string, fault: Fault, repair?: (reader: ServingProgram) => void][] = [
    ['is cut off from Redis', (_, cut) => cut.redis.close()],
    ['is cut off from the broker', (_, cut) => cut.broker.close()],
    ['is killed', reader => reader.stop('SIGKILL')],
    [
      'is stopped for a while',
      reader => void reader.child.kill('SIGSTOP'),
      reader => void reader.child.kill('SIGCONT'),
    ],
    ['ends', reader => reader.stop('SIGTERM')],
  ]
  for (const [name, fault, repair] of faults) {
    it(`lose and repeat nothing when the one that reads the broker ${name}`, async () => {
      const cut = {
        redis: await startCuttingProxy(() => redisPort),
        broker: await startCuttingProxy(() => broker.port),
      }
      const a = await start({ url: `redis://127.0.0.1:${cut.redis.port}`, brokerPort: cut.broker.port })
      await a.logged('this gateway reads the broker')
      const b = await start()
      const atB = await listenOverSse(urlsOf(b), { topics: ['news/#'] })
      const steady = await publishSteadily()
      await eventually(() => atB.events.length > 200)
      await fault(a, cut)
      const before = performance.now()
      const count = atB.events.length
      await b.logged('this gateway reads the broker')
      await eventually(() => atB.events.length > count)
      const duration = performance.now() - before
      expect(duration).toBeLessThan(5000)
      await eventually(() => atB.events.length > count + 200)
      repair?.(a)
      const later = atB.events.length
      await eventually(() => atB.events.length > later + 500)
      await steady.stop()
      await eventually(() => atB.events.at(-1)?.payload.toString() === steady.acknowledged.at(-1))
      expect(atB.events.map(({ payload }) => payload.toString())).toEqual(steady.acknowledged)
      expect(atB.gaps).toEqual([])
      await Promise.all(programs.splice(0).map(program => program.stop('SIGKILL')))
      await Promise.allSettled([cut.redis.close(), cut.broker.close()])
    }, 40_000)
  }

  it('lose and repeat nothing when Redis ends in the middle and starts again', async () => {
    const [a, b] = [await start(), await start()]
    await a.logged('this gateway reads the broker')
    const both = await Promise.all([a, b].map(each => listenOverSse(urlsOf(each), { topics: ['news/#'] })))
    const steady = await publishSteadily()
    await eventually(() => both.every(({ events }) => events.length > 100))
    await redis.kill()
    expect((await publish(a, 'refused')).status).toBe(503)
    const readiness = await fetch(`${b.url('http')}/readyz`)
    expect(readiness.status).toBe(503)
    expect(await readiness.text()).toContain('The journal of push is not available')
    await redis.start()
    const count = both.map(({ events }) => events.length)
    await eventually(() => both.every(({ events }, index) => events.length > (count[index] ?? 0) + 300))
    await steady.stop()
    for (const { events, gaps } of both) {
      await eventually(() => events.at(-1)?.payload.toString() === steady.acknowledged.at(-1))
      expect(events.map(({ payload }) => payload.toString())).toEqual(steady.acknowledged)
      expect(gaps).toEqual([])
    }
  }, 40_000)

  it('say when another client has the client id of their session', async () => {
    const a = await start({ clientId: 'same' })
    await a.logged('push connected to the broker')
    await eventually(async () => (await publish(a, 'x')).status === 201)
    // As those of another Redis, in turn with this one.
    const other = mqtt.connect(`mqtt://127.0.0.1:${broker.port}`, { clientId: 'same', reconnectPeriod: 20 })
    onTestFinished(() => void other.end(true))
    await a.logged('push.clientId of its own')
  }, 20_000)

  it('tell every subscriber of a gap when Redis has lost the journal, and go on', async () => {
    const [a, b] = [await start(), await start()]
    await a.logged('this gateway reads the broker')
    const both = await Promise.all([a, b].map(each => listenOverSse(urlsOf(each), { topics: ['news/#'] })))
    const first = await publish(a, 'first')
    await eventually(() => both.every(({ events }) => events.length === 1))
    await redis.client.flushall()
    let later = await publish(b, 'later')
    // The broker may be without a reader for a moment.
    while (later.status !== 201) later = await publish(b, 'later')
    for (const client of both) {
      await eventually(() => client.events.at(-1)?.payload.toString() === 'later')
      expect(client.gaps).toContain('missed')
    }
    const { id } = (await first.json()) as { id: string }
    const late = await listenOverSse(urlsOf(b), { topics: ['news/#'], cursor: id })
    await eventually(() => late.events.length > 0)
    expect(late.gaps[0]).toBe('other-epoch')
    expect(await redis.client.hget('mqway:journal', 'clientId')).toMatch(/^mqway-/)
  }, 40_000)
})
