import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import mqtt, { type MqttClient } from 'mqtt'
import { generate, type Packet, parser } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { Credentials } from '../broker/embedded/access-rig.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

const python = new URL('./paho_access.py', import.meta.url).pathname

/** Passwords cost what they cost with `mqway passwd`. */
const credentials = new Credentials({ cost: 10 })
let gateway: TestGateway
const closers: (() => unknown)[] = []
const programs: RunningProgram[] = []

beforeAll(async () => {
  gateway = await startTestGateway({
    // A thousand come from one address, and some of the test before may be there yet.
    limits: { upgradesBurst: 10_000, connectionsPerAddress: 2000 },
    access: {
      ...credentials.access,
      rules: [
        { to: 'anonymous', subscribe: ['news/#'] },
        { to: 'authenticated', publish: ['chat/%u/#'], subscribe: ['chat/#'] },
        { to: { role: 'editor' }, publish: ['news/#'] },
      ],
    },
  })
})
afterAll(async () => {
  for (const close of closers) close()
  await Promise.all(programs.map(program => program.stop()))
  await gateway.close()
  credentials.remove()
})

function program(command: string, ...args: string[]): RunningProgram {
  const started = run(command, args)
  programs.push(started)
  return started
}

const port = (): string => String(gateway.mqttPort)
const ws = (): string => `${gateway.urls.http.replace('http', 'ws')}/mqtt`

async function mqttjs(url: string, username?: string, password = ''): Promise<MqttClient> {
  const credentials = username === undefined ? {} : { username, password }
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, ...credentials }, false)
  closers.push(() => client.end(true))
  return client
}

async function metric(series: string): Promise<number> {
  const text = await (await fetch(`${gateway.urls.http}/metrics`)).text()
  const line = text.split('\n').find(candidate => candidate.startsWith(`${series} `))
  return Number(line?.slice(series.length))
}

describeWith(['mosquitto_pub', 'mosquitto_sub', 'stdbuf'], 'the command line tools on the MQTT port', () => {
  const alice = ['-u', 'alice', '-P', 'right']

  it.each([
    ['with the right password', [...alice, '-t', 'chat/alice/x'], 0, ''],
    ['with a wrong password', ['-u', 'alice', '-P', 'wrong', '-t', 'chat/alice/x'], 4, 'bad user name or password'],
    ['as a user who is not there', ['-u', 'eve', '-P', 'right', '-t', 'chat/eve/x'], 4, 'bad user name or password'],
    ['without a name', ['-t', 'news/x'], 0, ''],
    ['where they may not', [...alice, '-t', 'chat/bob/x'], 0, ''],
    ['with a will that they may not publish', [...alice, '-t', 'x', '--will-topic', 'news/x'], 5, 'not authorised'],
  ])('mosquitto_pub %s', async (_, args, code, text) => {
    const publisher = program('mosquitto_pub', '-p', port(), '-q', '1', '-m', 'hello', ...args)
    expect(await publisher.exited()).toBe(code)
    expect(publisher.errors()).toContain(text)
  })

  it('mosquitto_sub gets what its user may read, and is told what not', async () => {
    const topics = ['-t', 'chat/#', '-t', '#', '-t', 'news/+']
    const subscriber = program('stdbuf', '-oL', 'mosquitto_sub', '-d', '-v', '-p', port(), ...alice, ...topics)
    let line = ''
    while (!line.startsWith('Subscribed')) line = await subscriber.line()
    expect(line).toBe('Subscribed (mid: 1): 0, 128, 0')
    const denied = await metric('mqway_denied_total{action="publish"}')
    for (const topic of ['chat/alice/1', 'chat/bob/2']) {
      const publisher = program(
        'mosquitto_pub',
        '-p',
        port(),
        '-q',
        '2',
        '-m',
        'x',
        '-t',
        topic,
        '-u',
        'bob',
        '-P',
        'right',
      )
      expect(await publisher.exited()).toBe(0)
    }
    while (!line.startsWith('chat')) line = await subscriber.line()
    expect(line).toBe('chat/bob/2 x')
    expect(await metric('mqway_denied_total{action="publish"}')).toBe(denied + 1)
  })
})

describeWith(['python3-paho-mqtt'], 'Python on the MQTT port', () => {
  it.each([
    ['alice', 'right', 'chat/#', [{ connack: 0 }, { suback: 0 }, { puback: true }]],
    ['alice', 'right', '#', [{ connack: 0 }, { suback: 128 }, { puback: true }]],
    ['', '', 'news/#', [{ connack: 0 }, { suback: 0 }, { puback: true }]],
    ['alice', 'wrong', 'chat/#', [{ connack: 4 }]],
  ])('as %s with the password %s for %s', async (user, password, filter, answers) => {
    const client = program('/usr/bin/python3', python, port(), user, password, filter, 'chat/x')
    for (const answer of answers) expect(JSON.parse(await client.line())).toEqual(answer)
  })
})

describe.each([
  ['WebSocket', ws],
  ['TCP', () => `mqtt://127.0.0.1:${port()}`],
])('MQTT.js over %s', (_, url) => {
  it('with a user name and a password', async () => {
    const client = await mqttjs(url(), 'alice', 'right')
    await client.subscribeAsync('chat/#')
    await expect(client.subscribeAsync('#')).rejects.toThrow()
    const arrived = nextMessage(client)
    await client.publishAsync('chat/bob/1', 'no', { qos: 1 })
    await client.publishAsync('chat/alice/1', 'yes', { qos: 1 })
    expect(await arrived).toMatchObject({ topic: 'chat/alice/1' })
  })

  it('with a token for a password, whose roles count', async () => {
    const reader = await mqttjs(url())
    await reader.subscribeAsync('news/#')
    const arrived = nextMessage(reader)
    const editor = await mqttjs(url(), 'whoever', await credentials.token('ed', { roles: ['editor'] }))
    await editor.publishAsync('news/1', 'x', { qos: 1 })
    expect(await arrived).toMatchObject({ topic: 'news/1' })
  })

  it.each([
    ['a wrong password', 'alice', 'wrong'],
    ['a token that somebody else signed', 'x', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJlZCIsImV4cCI6NDAwMDAwMDAwMH0.AAAA'],
    ['a token without a signature', 'x', 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJlZCIsImV4cCI6NDAwMDAwMDAwMH0.AA'],
  ])('is refused with %s, and it counts', async (_, user, password) => {
    const before = await metric('mqway_endings_total{reason="identity-refused"}')
    await expect(mqttjs(url(), user, password)).rejects.toMatchObject({ code: 4 })
    await expect.poll(() => metric('mqway_endings_total{reason="identity-refused"}')).toBe(before + 1)
  })

  it('ends when its token expires', async () => {
    const before = await metric('mqway_endings_total{reason="identity-expired"}')
    const client = await mqttjs(url(), 'x', await credentials.token('dave', {}, Date.now() + 2000))
    await new Promise<void>(resolve => client.once('close', resolve))
    await expect.poll(() => metric('mqway_endings_total{reason="identity-expired"}')).toBe(before + 1)
  })
})

describe('a WebSocket', () => {
  async function speak(packet: Packet) {
    const socket = new WebSocket(ws(), 'mqtt')
    const packets = parser()
    const got: Packet[] = []
    packets.on('packet', received => got.push(received))
    socket.on('message', (data: Buffer) => packets.parse(data))
    await once(socket, 'open')
    socket.send(generate(packet))
    const [code, reason] = await once(socket, 'close')
    return { got, code, reason: String(reason) }
  }
  const connect = { cmd: 'connect', clientId: 'raw', keepalive: 0 } as const

  it('gets CONNACK, and then the reason in the close frame', async () => {
    const refused = await speak({ ...connect, username: 'bob', password: Buffer.from('wrong') })
    expect(refused).toMatchObject({ got: [{ cmd: 'connack', returnCode: 4 }], code: 1008 })
    expect(refused.reason).toContain('The credentials are not accepted')
  })

  it('is told that its identity has expired', async () => {
    const password = Buffer.from(await credentials.token('dave', {}, Date.now() + 1500))
    const ended = await speak({ ...connect, username: 'x', password })
    expect(ended).toMatchObject({ got: [{ cmd: 'connack', returnCode: 0 }], code: 1008 })
    expect(ended.reason).toBe('Credentials expired')
  })

  it('is not refused for what the program itself does: it is ready', async () => {
    expect((await fetch(`${gateway.urls.http}/readyz`)).status).toBe(200)
  })
})

describe('a thousand wrong passwords from one address', () => {
  /** The return code of one CONNECT from an address of loopback; `undefined` where there was none. */
  async function attempt(localAddress: string, password: string): Promise<number | undefined> {
    const socket = connectTcp({ port: gateway.mqttPort, host: '127.0.0.1', localAddress })
    const packets = parser()
    const answer = new Promise<number | undefined>(resolve => {
      packets.on('packet', packet => resolve(packet.cmd === 'connack' ? packet.returnCode : undefined))
      socket.on('close', () => resolve(undefined))
    })
    socket.on('data', data => packets.parse(data))
    socket.on('error', () => {})
    socket.write(
      generate({
        cmd: 'connect',
        clientId: '',
        clean: true,
        keepalive: 0,
        username: 'carol',
        password: Buffer.from(password),
      }),
    )
    const code = await answer
    socket.destroy()
    return code
  }

  it('are few that are looked at, and another client gets in meanwhile', async () => {
    const flood = Array.from({ length: 1000 }, (_, index) => attempt('127.0.0.2', `wrong ${index}`))
    expect(await attempt('127.0.0.3', 'right')).toBe(0)
    const codes = await Promise.all(flood)
    expect(codes.filter(code => code === 0)).toEqual([])
    // Ten at once; one more for each ten seconds that this took.
    const looked = codes.filter(code => code === 4).length
    expect(looked).toBeGreaterThanOrEqual(10)
    expect(looked).toBeLessThan(15)
    expect(codes.filter(code => code === 3)).toHaveLength(1000 - looked)
    await expect.poll(() => metric('mqway_endings_total{reason="too-many-attempts"}')).toBe(1000 - looked)
  })
})

describe('a CONNECT that never ends', () => {
  it('ends in time, on both ways in, and counts', async () => {
    const slow = await startTestGateway({ access: credentials.access, limits: { connectTimeout: '300ms' } })
    // A remaining length of 1000, of which little comes, at a byte every now and then.
    const beginning = Buffer.from([0x10, 0xe8, 0x07, 0, 4, ...Buffer.from('MQTT'), 4, 0xc2])
    const socket = connectTcp({ port: slow.mqttPort, host: '127.0.0.1' })
    const webSocket = new WebSocket(`${slow.urls.http.replace('http', 'ws')}/mqtt`, 'mqtt')
    await once(webSocket, 'open')
    const ends = Promise.all([once(socket.resume(), 'end'), once(webSocket, 'close')])
    socket.write(beginning)
    webSocket.send(beginning)
    const drip = setInterval(() => {
      if (socket.writable) socket.write('x')
      if (webSocket.readyState === WebSocket.OPEN) webSocket.send('x', { binary: true })
    }, 20)
    const [, [code, reason]] = await ends
    clearInterval(drip)
    socket.destroy()
    expect([code, String(reason)]).toEqual([1008, 'No complete MQTT CONNECT arrived in time'])
    await expect
      .poll(async () => (await fetch(`${slow.urls.http}/metrics`)).text())
      .toContain('mqway_endings_total{reason="connect-timeout"} 2')
    await slow.close()
  })
})
