import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { cp, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { connect as connectTcp, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { connect as connectTls } from 'node:tls'
import bcrypt from 'bcrypt'
import mqtt, { type MqttClient } from 'mqtt'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { type Listen, pushTransports } from '../helpers/event-clients.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { mqway, type ServingProgram, serving } from '../helpers/program.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const listenOverSse = pushTransports['an event stream'] as Listen

/** The processes that a process has started. */
function childrenOf(pid: number | undefined): number[] {
  const pids = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim()
  return pids === '' ? [] : pids.split(' ').map(Number)
}

function isRunning(pid: number): boolean {
  try {
    // A process that has ended, and for which nobody has waited yet, is in state Z.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}

async function metric(http: string, name: string): Promise<number | undefined> {
  const text = await (await fetch(`${http}/metrics`)).text()
  const line = text.split('\n').find(each => each.startsWith(`${name} `))
  return line === undefined ? undefined : Number(line.slice(name.length + 1))
}

const [alice, bob] = ['alice', 'bob'].map(user => `Basic ${Buffer.from(`${user}:right`).toString('base64')}`)

/** Sends a request on a connection of its own, which the next worker gets. */
async function ask(method: string, url: string, authorization = alice) {
  const sent = request(url, { method, agent: false, headers: { authorization } }).end()
  const [response] = await once(sent, 'response')
  return { status: Number(response.statusCode), body: await text(response) }
}

const maxConnections = 20
const refusalsOfAddress = 'mqway_refusals_total{reason="too-many-from-address"}'
const openOverTcp = 'mqway_connections{transport="tcp",state="open"}'

describeWith(['redis-server', 'mosquitto'], 'two workers', () => {
  let [redis, broker, program, directory] = [{} as RedisServer, {} as Mosquitto, {} as ServingProgram, '']
  const start = async (config: object): Promise<ServingProgram> => {
    const file = join(directory, `${performance.now()}.json`)
    const ports = { http: { port: 0 }, https: { port: 0 }, mqtt: { port: 0 } }
    const own = { workers: 2, broker: `mqtt://127.0.0.1:${broker.port}`, ...ports, ...config }
    await writeFile(file, JSON.stringify(own))
    return serving(['--config', file], directory)
  }
  const connect = () => mqtt.connectAsync(program.url('mqtt'), { reconnectPeriod: 0 })
  /** Whether a connection is closed without a byte from the broker. */
  const isRefused = async (): Promise<boolean> => {
    const socket = connectTcp(Number(new URL(program.url('mqtt')).port), '127.0.0.1')
    socket.on('error', () => {}).write(Buffer.from('100d00044d5154540402003c000161', 'hex'))
    const isClosed = await new Promise<boolean>(resolve => {
      socket.once('data', () => resolve(false)).once('close', () => resolve(true))
    })
    socket.destroy()
    return isClosed
  }
  /** Both workers know all connections: two in a row are at different ones. */
  const expectRefusals = () => eventually(async () => (await isRefused()) && (await isRefused()))
  const clients: MqttClient[] = []
  const listClients = async (query: string) =>
    JSON.parse((await ask('GET', `${program.url('http')}/v1/clients?${query}`)).body)

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-workers-'))
    redis = await startRedis()
    broker = await startMosquitto()
    const hash = bcrypt.hashSync('right', 4)
    await writeFile(join(directory, 'users'), `alice:${hash}\nbob:${hash}\n`)
    const everything = { publish: ['#'], subscribe: ['#'] }
    program = await start({
      data: 'none',
      anonymous: true,
      access: {
        htpasswd: 'users',
        rules: [
          { to: 'anonymous', ...everything },
          { to: 'authenticated', ...everything, admin: true },
        ],
      },
      push: { topics: ['news/#'], journal: { redis: { url: redis.url } }, presence: { messages: false } },
      limits: { connectionsPerAddress: maxConnections },
    })
  }, 60_000)
  afterAll(async () => {
    for (const client of clients) client.end(true)
    await program.stop?.('SIGKILL')
    await broker.stop()
    await redis.stop()
    await rm(directory, { recursive: true, force: true })
  })

  it('give subscribers of each of them the same events', async () => {
    const urls = { http: program.url('http'), https: program.url('https') }
    const streams = await Promise.all([1, 2, 3, 4].map(() => listenOverSse(urls, { topics: ['news/#'] })))
    await eventually(async () => {
      const published = await fetch(`${urls.http}/v1/publish?topic=news/x`, { method: 'POST', body: 'first' })
      return published.status === 201
    })
    await eventually(() => streams.every(({ events }) => events.length > 0))
    const { id } = streams[0]?.events[0] ?? {}
    expect(id).toBeTruthy()
    for (const { events } of streams) expect(events[0]).toMatchObject({ id, payload: Buffer.from('first') })
    await eventually(async () => (await metric(urls.http, 'mqway_push_subscribers')) === 4)
    expect(await metric(urls.http, 'mqway_push_journal_events')).toBe(1)
    await Promise.all(streams.map(stream => stream.close()))
    await eventually(async () => (await metric(urls.http, 'mqway_push_subscribers')) === 0)
  }, 30_000)

  it('resume each other’s TLS sessions', async () => {
    const port = Number(new URL(program.url('https')).port)
    const options = { port, host: '127.0.0.1', rejectUnauthorized: false, maxVersion: 'TLSv1.2' as const }
    let session: Buffer | undefined
    const resumed: boolean[] = []
    for (let visit = 0; visit < 5; visit++) {
      const socket = connectTls({ ...options, session })
      await once(socket, 'secureConnect')
      session = socket.getSession()
      resumed.push(socket.isSessionReused())
      socket.destroy()
    }
    expect(resumed).toEqual([false, true, true, true, true])
  })

  it('accept each other’s tickets, once', async () => {
    const { ticket } = JSON.parse((await ask('POST', `${program.url('http')}/v1/tickets`)).body)
    const open = async () => {
      const socket = new WebSocket(`${program.url('ws')}?ticket=${ticket}`, 'mqtt')
      const outcome = await new Promise(resolve => {
        socket.once('open', () => resolve('open')).once('error', error => resolve(error.message))
      })
      socket.terminate()
      return outcome
    }
    // The requests of both workers, in turn.
    expect([await open(), await open(), await open()]).toEqual([
      'open',
      'Unexpected server response: 401',
      'Unexpected server response: 401',
    ])
  })

  it('give each other’s event streams fresh credentials', async () => {
    const headers = { authorization: alice ?? '' }
    const http = program.url('http')
    const streams = await Promise.all(
      [1, 2].map(async () => {
        const stream = request(`${http}/v1/events?topic=news/x`, { agent: false, headers }).end()
        const [response] = await once(stream, 'response')
        let received = ''
        response.on('data', (chunk: Buffer) => {
          received += chunk
        })
        await eventually(() => received.includes('event: live'))
        const [, id = ''] = /"connection":"([^"]+)"/.exec(received) ?? []
        return { id, close: () => stream.on('error', () => {}).destroy() }
      }),
    )
    for (const { id } of streams) {
      const answers = [alice, alice, bob, bob].map(user => ask('POST', `${http}/v1/connections/${id}`, user))
      expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([204, 204, 403, 403])
    }
    expect((await ask('POST', `${http}/v1/connections/${'x'.repeat(22)}`)).status).toBe(404)
    for (const stream of streams) stream.close()
  })

  it('have one limit of connections for each address, one list of metrics, and are replaced one by one', async () => {
    const http = program.url('http')
    for (let index = 0; index < maxConnections; index++) clients.push(await connect())
    await eventually(async () => (await metric(http, openOverTcp)) === maxConnections)
    const pages = await Promise.all([listClients('limit=15'), listClients('limit=15')])
    for (const page of pages) {
      expect([page.connected, page.clients.length]).toEqual([maxConnections, 15])
      const rest = await listClients(`limit=15&cursor=${page.next}`)
      expect([rest.clients.length, rest.next]).toEqual([5, undefined])
      const all = [...page.clients, ...rest.clients].map(({ clientId }: { clientId: string }) => clientId)
      expect(all.sort()).toEqual(clients.map(({ options }) => options.clientId).sort())
    }
    await expectRefusals()
    const refusals = await metric(http, refusalsOfAddress)
    expect(refusals).toBeGreaterThanOrEqual(2)

    const before = childrenOf(program.child.pid)
    expect(before).toHaveLength(2)
    process.kill(before[0] ?? 0, 'SIGSTOP')
    // One of them is on its way to the stopped worker.
    const refused = [isRefused(), isRefused()]
    await Promise.race(refused)
    process.kill(before[0] ?? 0, 'SIGKILL')
    expect(await Promise.all(refused)).toEqual([true, true])
    expect(await program.logged('A worker has ended')).toMatchObject({ pid: before[0], signal: 'SIGKILL' })
    await program.logged('A worker was replaced')
    const after = childrenOf(program.child.pid)
    expect(after).toContain(before[1])
    expect(after).toHaveLength(2)
    const stayed = clients.filter(({ connected }) => connected)
    expect(stayed).toHaveLength(maxConnections / 2)
    await eventually(async () => (await metric(http, openOverTcp)) === stayed.length)
    expect(await metric(http, refusalsOfAddress)).toBeGreaterThanOrEqual(refusals ?? 0)
    expect(await metric(http, 'mqway_worker_ends_total')).toBe(1)
    expect(await metric(http, 'mqway_workers_missing')).toBe(0)
    // The new worker knows the connections of the other one.
    for (let index = stayed.length; index < maxConnections; index++) clients.push(await connect())
    await expectRefusals()
    for (const client of clients.slice(-2)) {
      const closed = new Promise<void>(resolve => client.once('close', () => resolve()))
      const { body } = await ask('DELETE', `${http}/v1/clients/${client.options.clientId}?reason=test`)
      expect(JSON.parse(body)).toEqual({ disconnected: 1, session: false })
      await closed
    }
    await clients.find(({ connected }) => connected)?.publishAsync('a', 'b', { qos: 1 })
  }, 30_000)

  it('end when the primary process is killed, and tell their clients', async () => {
    const pids = childrenOf(program.child.pid)
    const closed = clients
      .filter(({ connected }) => connected)
      .map(client => new Promise<void>(resolve => client.once('close', () => resolve())))
    await program.stop('SIGKILL')
    await Promise.all(closed)
    await eventually(() => !pids.some(isRunning))
  }, 30_000)

  /** A relay in front of Redis, which can hold new connections. */
  const startRelay = async () => {
    const held: (() => void)[] = []
    let holds = false
    const server = createServer(socket => {
      const pass = (): void => {
        const upstream = connectTcp(redis.url.replace('unix:', ''))
        for (const each of [socket, upstream]) each.on('error', () => {})
        socket.pipe(upstream).pipe(socket)
      }
      if (holds) held.push(pass)
      else pass()
    }).listen(0, '127.0.0.1')
    onTestFinished(() => void server.close())
    await once(server, 'listening')
    const address = server.address()
    return {
      url: `redis://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
      hold: () => {
        holds = true
      },
      holding: () => eventually(() => held.length > 0),
      release: () => {
        holds = false
        for (const pass of held.splice(0)) pass()
      },
    }
  }

  it('read certificates again after SIGHUP that comes while they start', async () => {
    const relay = await startRelay()
    const push = { topics: ['news/#'], journal: { redis: { url: relay.url, prefix: 'hangup:' } } }
    const starting = await start({ data: 'none', push, shutdown: { grace: '1s' } })
    onTestFinished(() => starting.stop('SIGKILL'))
    relay.hold()
    process.kill(childrenOf(starting.child.pid)[0] ?? 0, 'SIGKILL')
    await relay.holding()
    starting.child.kill('SIGHUP')
    await starting.logged('The certificate was')
    relay.release()
    const { worker } = await starting.logged('The certificate was')
    expect(worker).toBe(1)
  }, 30_000)

  it('end when the primary process is killed while they start', async () => {
    const relay = await startRelay()
    const push = { topics: ['news/#'], journal: { redis: { url: relay.url, prefix: 'start:' } } }
    const starting = await start({ data: 'none', push, shutdown: { grace: '1s' } })
    relay.hold()
    const [first = 0, ...others] = childrenOf(starting.child.pid)
    process.kill(first, 'SIGKILL')
    await relay.holding()
    const pids = childrenOf(starting.child.pid)
    expect(pids.length).toBe(2)
    await starting.stop('SIGKILL')
    relay.release()
    await eventually(() => ![...others, ...pids].some(isRunning))
  }, 30_000)

  it('end when the primary process gets SIGTERM, also over a Unix socket, and pass SIGHUP on', async () => {
    const path = join(directory, 'http.sock')
    const other = await start({ http: { port: `unix:${path}` }, push: 'off' })
    expect(other.urls).toContain(`unix:${path}`)
    expect((await stat(path)).mode & 0o777).toBe(0o660)
    const sockets = [1, 2].map(() => new WebSocket(other.url('wss'), 'mqtt', { rejectUnauthorized: false }))
    await Promise.all(sockets.map(socket => once(socket, 'open')))
    const closed = sockets.map(socket => once(socket, 'close'))
    const pids = childrenOf(other.child.pid)
    other.child.kill('SIGHUP')
    const reloaded = [await other.logged('The certificate was'), await other.logged('The certificate was')]
    expect(reloaded.map(({ worker }) => worker).sort()).toEqual([1, 2])
    // Service managers and terminals send it to all.
    for (const pid of [...pids, other.child.pid ?? 0]) process.kill(pid, 'SIGTERM')
    for (const [code] of await Promise.all(closed)) expect(code).toBe(1001)
    expect(await other.exited()).toBe(0)
    expect(pids.some(isRunning)).toBe(false)
  }, 30_000)

  it('end with exit code 69 and one line once none of them can start any more', async () => {
    // Of the programs before.
    for (const file of ['localhost.crt', 'localhost.key'])
      await cp(join(directory, 'certs', file), join(directory, file))
    const https = { port: 0, cert: 'localhost.crt', key: 'localhost.key' }
    const failing = await start({ http: { port: 'off' }, https, push: 'off', data: 'none' })
    await writeFile(join(directory, 'localhost.crt'), 'none')
    for (const pid of childrenOf(failing.child.pid)) process.kill(pid, 'SIGKILL')
    await failing.logged('again and again')
    // The first that gives up ends all.
    await expect(failing.logged('')).rejects.toThrow()
    expect(await failing.exited()).toBe(69)
    expect(failing.errors()).toMatch(/^mqway: .*localhost\.crt holds no certificate.*\n$/)
  }, 30_000)

  it('end with exit code 69 and one line if a port is taken', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    const file = join(directory, 'taken.json')
    const config = { workers: 2, broker: `mqtt://127.0.0.1:${broker.port}`, http: { port }, https: { port: 'off' } }
    await writeFile(file, JSON.stringify({ ...config, mqtt: { port: 'off' }, push: 'off', data: 'none' }))
    const taken = mqway(['serve', '--config', file], directory)
    expect(await taken.exited()).toBe(69)
    expect(taken.errors()).toMatch(/^mqway: port \d+ on 127\.0\.0\.1 is taken: .*\n$/)
    server.close()
  })
})
