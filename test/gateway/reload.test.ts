import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import bcrypt from 'bcrypt'
import mqtt, { type IClientOptions, type IPublishPacket, type MqttClient } from 'mqtt'
import { expect, onTestFinished, test } from 'vitest'
import { WebSocket } from 'ws'
import type { ConfigInput } from '../../src/config/schema.js'
import { pushTransports } from '../helpers/event-clients.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { startReceiver } from '../integrations/notify/receiver.js'
import { recordingLog, temporaryDirectory, writeCertificate } from '../server/rig.js'

const { 'an event stream': listenSse = () => expect.fail('there is no such transport') } = pushTransports

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  return gateway
}

type Rules = NonNullable<NonNullable<ConfigInput['access']>['rules']>

const everybody = (rule: object): Rules => [{ to: 'anonymous', ...rule }] as Rules

/** Access control with these rules for clients without credentials. */
const access = (rules: Rules): ConfigInput => ({ access: { jwt: { secret: 'x'.repeat(32) }, rules } })

interface Client extends MqttClient {
  readonly endings: { readonly reason: number }[]
}

async function connect(url: string, options: IClientOptions = {}): Promise<Client> {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, protocolVersion: 5, ...options })
  onTestFinished(() => void client.end(true))
  client.on('error', () => {})
  const endings: { reason: number }[] = []
  client.on('disconnect', ({ reasonCode = 0 }) => endings.push({ reason: reasonCode }))
  return Object.assign(client, { endings })
}

async function publish({ urls }: TestGateway, topic: string, agent = new Agent()): Promise<number> {
  const publishing = request(`${urls.http}/v1/publish?topic=${topic}`, { method: 'POST', agent })
  publishing.end('x')
  const [response] = await once(publishing, 'response')
  response.resume()
  await once(response, 'end')
  return response.statusCode
}

const statusOf = async (url: string): Promise<number> => (await fetch(url)).status

async function metricOf({ urls }: TestGateway, line: string): Promise<number> {
  const text = await (await fetch(`${urls.http}/metrics`)).text()
  return Number(
    text
      .split('\n')
      .find(one => one.startsWith(`${line} `))
      ?.slice(line.length + 1),
  )
}

/** A server of TCP that accepts and counts connections, as a broker does. */
async function startBroker(): Promise<{ url: string; sockets: Set<net.Socket> }> {
  const sockets = new Set<net.Socket>()
  const server = net.createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.resume()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets }
}

async function openWebSocket(
  gateway: TestGateway,
  path: string,
): Promise<{ client: WebSocket; ended: Promise<number> }> {
  const client = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}${path}`, 'mqtt')
  onTestFinished(() => client.terminate())
  const ended = new Promise<number>(resolve => client.on('close', code => resolve(code)))
  await once(client, 'open')
  return { client, ended }
}

test('a new rule lets an open connection publish, over HTTP and MQTT, without a new connection', async () => {
  const gateway = await start(access(everybody({ subscribe: ['#'] })))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  onTestFinished(() => agent.destroy())
  const client = await connect(gateway.urls.mqtt)
  await client.subscribeAsync('news/#')
  const received: string[] = []
  client.on('message', topic => received.push(topic))
  expect(await publish(gateway, 'news/1', agent)).toBe(403)

  await gateway.reload(access(everybody({ publish: ['news/#'], subscribe: ['#'] })))
  expect(await publish(gateway, 'news/2', agent)).toBe(201)
  await client.publishAsync('news/3', 'x', { qos: 1 })
  await eventually(() => received.length === 2)
  expect(received).toEqual(['news/2', 'news/3'])
  expect(Object.values(agent.freeSockets).flat()).toHaveLength(1)
})

test('a removed rule ends the subscribers that it served, with the reason, and no others', async () => {
  const gateway = await start(access(everybody({ publish: ['#'], subscribe: ['a/#', 'b/#'] })))
  const [ofA, ofB] = [await connect(gateway.urls.mqtt), await connect(gateway.urls.mqtt)]
  await ofA.subscribeAsync(['a/x', 'a/y/#'])
  await ofB.subscribeAsync('b/#')
  const streamOfA = await listenSse(gateway.urls, { topics: ['a/+'] })
  const streamOfB = await listenSse(gateway.urls, { topics: ['b/+'] })

  await gateway.reload(access(everybody({ publish: ['#'], subscribe: ['b/#'] })))
  await streamOfA.ended
  await eventually(() => ofA.endings.length === 1)
  expect(ofA.endings).toEqual([{ reason: 0x87 }])
  await publish(gateway, 'b/1')
  await eventually(() => streamOfB.events.length === 1)
  expect(ofB.connected).toBe(true)
  expect(await metricOf(gateway, 'mqway_endings_total{reason="topic-refused"}')).toBe(2)
})

test('a waiting poll is answered when its rule is removed, and refused from then on', async () => {
  const gateway = await start(access(everybody({ subscribe: ['a/#'] })))
  const poll = `${gateway.urls.http}/v1/poll?topic=a/b&timeout=60`
  const waiting = fetch(poll)
  await eventually(async () => (await metricOf(gateway, 'mqway_push_subscribers')) === 1)
  await gateway.reload(access(everybody({ subscribe: ['b/#'] })))
  expect((await waiting).status).toBe(200)
  expect(await statusOf(poll)).toBe(403)
})

test('a removed user is disconnected, and a new one can log in', async () => {
  const gateway = await start({ access: { htpasswd: await users('first', 'ann', 'bob') } })
  const login = (username: string) => connect(gateway.urls.mqtt, { username, password: 'right' })
  const [ann, bob] = [await login('ann'), await login('bob')]
  await gateway.reload({ access: { htpasswd: await users('second', 'bob', 'cleo') } })
  await eventually(() => ann.endings.length === 1)
  expect(bob.connected).toBe(true)
  expect((await login('cleo')).connected).toBe(true)
  await expect(login('ann')).rejects.toThrow()
})

const hash = bcrypt.hashSync('right', 4)

/** A password file, in a directory of the test. */
async function users(name: string, ...all: string[]): Promise<string> {
  const directory = await temporaryDirectory()
  const lines = all.map(user => `${user}:${hash}`)
  await writeFile(join(directory, name), `${lines.join('\n')}\n`)
  return join(directory, name)
}

test('a file that cannot be used leaves everything as it was', async () => {
  const gateway = await start({ ...access(everybody({ publish: ['a/#'] })), deny: ['.old'] })
  const client = await connect(gateway.urls.mqtt)
  const file = join(await temporaryDirectory(), 'users')
  await writeFile(file, 'no password file\n')
  const unusable = { ...access(everybody({ publish: ['b/#'] })).access, htpasswd: file }
  await expect(gateway.reload({ access: unusable, deny: ['.new'] })).rejects.toThrow(file)
  expect(await publish(gateway, 'a/x')).toBe(201)
  expect(await publish(gateway, 'b/x')).toBe(403)
  expect(await statusOf(`${gateway.urls.http}/x.old`)).toBe(403)
  expect(await statusOf(`${gateway.urls.http}/x.new`)).toBe(404)
  expect(client.connected).toBe(true)
  expect(await metricOf(gateway, 'mqway_config_last_reload_successful')).toBe(0)
  expect(await metricOf(gateway, 'mqway_config_reloads_total{result="refused"}')).toBe(1)
  await gateway.reload({})
  expect(await metricOf(gateway, 'mqway_config_last_reload_successful')).toBe(1)
})

test('an added tunnel is served, a removed one ends with its reason, and another one stays', async () => {
  const [kept, first, second] = [await startBroker(), await startBroker(), await startBroker()]
  const tunnel = (path: string, broker: { url: string }) => ({ path, broker: broker.url, inspectConnect: false })
  const gateway = await start({ tunnels: [tunnel('/kept', kept), tunnel('/gone', first), tunnel('/moved', first)] })
  const [stays, gone, moved] = await Promise.all(['/kept', '/gone', '/moved'].map(path => openWebSocket(gateway, path)))
  await gateway.reload({
    tunnels: [
      { ...tunnel('/kept', kept), origins: ['https://a.example'] },
      tunnel('/moved', second),
      tunnel('/new', second),
    ],
  })
  expect(await gone?.ended).toBe(1012)
  expect(await moved?.ended).toBe(1012)
  await openWebSocket(gateway, '/new')
  await openWebSocket(gateway, '/moved')
  expect(stays?.client.readyState).toBe(WebSocket.OPEN)
  expect([kept.sockets.size, second.sockets.size]).toEqual([1, 2])
  // The broker that no tunnel leads to any more.
  await eventually(() => first.sockets.size === 0)
  expect(await statusOf(`${gateway.urls.http}/gone`)).toBe(404)
  expect(gateway.gateway.urls.some(url => url.endsWith('/new'))).toBe(true)
})

test('limits apply to new connections, and open ones stay', async () => {
  const gateway = await start({ limits: { connections: 100 } })
  const [first, second] = [await connect(gateway.urls.mqtt), await connect(gateway.urls.mqtt)]
  await gateway.reload({ limits: { connections: 1 } })
  const refused = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, 'mqtt')
  refused.on('error', () => {})
  expect((await once(refused, 'unexpected-response'))[1].statusCode).toBe(503)
  expect(first.connected && second.connected).toBe(true)
  await gateway.reload({ limits: { connections: 100 } })
  expect((await connect(gateway.urls.mqtt)).connected).toBe(true)
})

test('addresses that may no longer connect are disconnected', async () => {
  const gateway = await start()
  const client = await connect(gateway.urls.mqtt)
  await gateway.reload({ limits: { allow: ['10.0.0.0/8'] } })
  await eventually(() => client.endings.length === 1)
  expect(client.endings).toEqual([{ reason: 0x87 }])
})

test('pages, headers, redirects and origins are those of the new configuration', async () => {
  const directory = await temporaryDirectory()
  await mkdir(join(directory, 'site'))
  await writeFile(join(directory, 'site', 'own.html'), 'own')
  const gateway = await start()
  const stream = await listenSse(gateway.urls, { topics: ['a'] })
  expect(await statusOf(`${gateway.urls.http}/own.html`)).toBe(404)
  await gateway.reload({
    public: join(directory, 'site'),
    headers: [{ pathPrefix: '/', set: { 'X-Frame-Options': 'DENY' } }],
    push: { origins: ['https://a.example'] },
  })
  const page = await fetch(`${gateway.urls.http}/own.html`)
  expect([page.status, page.headers.get('x-frame-options')]).toEqual([200, 'DENY'])
  const cors = await fetch(`${gateway.urls.http}/v1/presence?topic=a`, { headers: { origin: 'https://a.example' } })
  expect(cors.headers.get('access-control-allow-origin')).toBe('https://a.example')
  await publish(gateway, 'a')
  await eventually(() => stream.events.length === 1)
  await gateway.reload({ http: { redirect: true } })
  expect((await fetch(`${gateway.urls.http}/own.html`, { redirect: 'manual' })).status).toBe(301)
})

test('a port stays as it is until the restart', async () => {
  const gateway = await start()
  await gateway.reload({ http: { port: 1 }, deny: ['.x'] })
  expect(await statusOf(`${gateway.urls.http}/healthz`)).toBe(200)
  expect(await statusOf(`${gateway.urls.http}/a.x`)).toBe(403)
})

test('another certificate is served to new connections, and open ones stay', async () => {
  const directory = await temporaryDirectory()
  const [one, two] = await Promise.all(
    ['one', 'two'].map(name => writeCertificate(directory, { name: `${name}.example`, files: name, validFor: 8.64e9 })),
  )
  const gateway = await start({ https: { cert: one?.cert ?? '', key: one?.key ?? '' } })
  const open = async () => {
    const socket = connectTls({ port: Number(new URL(gateway.urls.https).port), rejectUnauthorized: false })
    onTestFinished(() => void socket.destroy())
    await once(socket, 'secureConnect')
    return socket
  }
  const before = await open()
  expect(before.getPeerCertificate().subject.CN).toBe('one.example')
  await gateway.reload({ https: { cert: two?.cert ?? '', key: two?.key ?? '' } })
  expect((await open()).getPeerCertificate().subject.CN).toBe('two.example')
  expect(before.destroyed).toBe(false)
})

test('other topics of push are appended to the journal', async () => {
  const gateway = await start({ push: { topics: ['a/#'] } })
  const stream = await listenSse(gateway.urls, { topics: ['#'] })
  await publish(gateway, 'b/1')
  await gateway.reload({ push: { topics: ['b/#'] } })
  await publish(gateway, 'a/2')
  await publish(gateway, 'b/2')
  await eventually(() => stream.events.length > 0)
  expect(stream.events.map(({ topic }) => topic)).toEqual(['b/2'])
})

test('a request that waits for its response gets it after a reload', async () => {
  const gateway = await start()
  const service = await connect(gateway.urls.mqtt)
  await service.subscribeAsync('service')
  const asked = new Promise<IPublishPacket>(resolve => service.on('message', (...[, , packet]) => resolve(packet)))
  const waiting = fetch(`${gateway.urls.http}/v1/request?topic=service`, { method: 'POST', body: 'question' })
  const { responseTopic = '', correlationData } = (await asked).properties ?? {}
  await gateway.reload({ deny: ['.x'] })
  await service.publishAsync(responseTopic, 'answer', { properties: correlationData && { correlationData } })
  const response = await waiting
  expect([response.status, await response.text()]).toEqual([200, expect.stringContaining('answer')])
})

test('rules of notify are added, changed and removed', async () => {
  const receiver = await startReceiver()
  onTestFinished(() => receiver.close())
  const notify = (...topics: string[]): ConfigInput => ({
    notify: {
      rules: [
        { name: 'all', topics, webhook: { url: receiver.url, secret: `whsec_${Buffer.alloc(32).toString('base64')}` } },
      ],
    },
  })
  const gateway = await start()
  const received = () => receiver.calls.flatMap(({ json }) => json.events.map(({ topic }) => topic))
  await publish(gateway, 'a/0')
  await gateway.reload(notify('a/#'))
  await publish(gateway, 'a/1')
  await eventually(() => received().length === 1)
  await gateway.reload(notify('b/#'))
  await publish(gateway, 'a/2')
  await publish(gateway, 'b/2')
  await eventually(() => received().length === 2)
  await gateway.reload({})
  await publish(gateway, 'b/3')
  expect(received()).toEqual(['a/1', 'b/2'])
})

describeWith('mosquitto', 'in front of another broker', () => {
  test('other topics of push are subscribed to over the same session', async () => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const broker = `mqtt://127.0.0.1:${mosquitto.port}`
    const gateway = await start({ broker, mqtt: { port: 'off' }, push: { topics: ['a/#'] } })
    const stream = await listenSse(gateway.urls, { topics: ['#'] })
    const publisher = await connect(broker)
    await publisher.publishAsync('b/0', 'x', { qos: 1 })
    await publisher.publishAsync('a/0', 'x', { qos: 1 })
    await eventually(() => stream.events.length === 1)
    await gateway.reload({ push: { topics: ['b/#'] } })
    // The subscription is made after the reload.
    await eventually(async () => {
      await publisher.publishAsync('b/1', 'x', { qos: 1 })
      return stream.events.some(({ topic }) => topic === 'b/1')
    })
    await publisher.publishAsync('a/1', 'x', { qos: 1 })
    await publisher.publishAsync('b/2', 'x', { qos: 1 })
    await eventually(() => stream.events.some(({ topic }) => topic === 'b/2'))
    expect([...new Set(stream.events.map(({ topic }) => topic))]).toEqual(['a/0', 'b/1', 'b/2'])
    expect(stream.gaps).toEqual([])
  })
})

test('the level of the log changes', async () => {
  const recording = recordingLog()
  const gateway = await startTestGateway({ log: { level: 'info' } }, recording.log)
  onTestFinished(() => gateway.close())
  await gateway.reload({ log: { level: 'error' } })
  expect(recording.log.level).toBe('error')
})

test('reloads at the same time are applied one after the other, and the last one counts', async () => {
  const gateway = await start()
  await Promise.all(['.a', '.b', '.c'].map(end => gateway.reload({ deny: [end] }).catch(() => {})))
  await gateway.reload({ deny: ['.d'] })
  expect(await statusOf(`${gateway.urls.http}/x.d`)).toBe(403)
  expect(await statusOf(`${gateway.urls.http}/x.c`)).toBe(404)
})

test('a hundred reloads leave no descriptors and no listeners behind', async () => {
  const broker = await startBroker()
  const gateway = await start({ access: { htpasswd: await users('users', 'ann') } })
  const other = (round: number): ConfigInput => ({
    access: { ...access(everybody({ publish: [`r${round}/#`] })).access },
    tunnels: [{ path: '/mqtt' }, { path: `/t${round}`, broker: broker.url }],
    deny: [`.r${round}`],
  })
  const descriptors = async () => (await readdir('/proc/self/fd')).length
  for (let round = 0; round < 10; round++) await gateway.reload(other(round))
  const before = await descriptors()
  const listeners = process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)
  for (let round = 0; round < 90; round++) await gateway.reload(other(round))
  expect(await descriptors()).toBeLessThanOrEqual(before + 5)
  expect(process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)).toBe(listeners)
  expect(await metricOf(gateway, 'mqway_config_reloads_total{result="applied"}')).toBe(100)
})
