import { randomBytes, randomInt } from 'node:crypto'
import net from 'node:net'
import mqtt, { type MqttClient } from 'mqtt'
import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { encodeByOracle } from '../helpers/ws-oracle.js'
import { makeRandom } from './random.js'

/** Attacks in one run; `npm run fuzz` makes it more. */
const attacks = Number(process.env['FUZZ_RUNS'] ?? 5_000)
/** The same seed makes the same attacks. */
const seed = Number(process.env['FUZZ_SEED'] ?? randomInt(2 ** 31))
/** Attacks that go on at the same time. */
const atATime = 200

const { random, pick, bytes, mutate } = makeRandom(seed)

const handshake = (headers = ''): Buffer =>
  Buffer.from(
    'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
      `Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n${headers}\r\n`,
  )
const frame = (payload: Buffer, opcode = 2, fin = true): Buffer =>
  encodeByOracle({ fin, opcode, payload, mask: bytes(4) })

const connect = (): Buffer =>
  generate({
    cmd: 'connect',
    clientId: `fuzz-${random(20)}`,
    protocolVersion: pick([3, 4]),
    protocolId: 'MQTT',
    clean: random(2) === 0,
    keepalive: random(100),
    will: {
      topic: pick(['will', '/a/b', 'x'.repeat(300)]),
      payload: bytes(random(50)),
      qos: pick([0, 1, 2]),
      retain: random(2) === 0,
    },
  })
const packets: readonly (() => Buffer)[] = [
  connect,
  () =>
    generate({
      cmd: 'publish',
      topic: pick(['a', 'fuzz/x', '$SYS/y', '/']),
      payload: bytes(random(300)),
      qos: pick([0, 1, 2]),
      messageId: 1 + random(9),
      dup: false,
      retain: random(2) === 0,
    }),
  () =>
    generate({
      cmd: 'subscribe',
      messageId: 1 + random(9),
      subscriptions: [{ topic: pick(['#', '+/x', 'a/#/b', 'fuzz/+', '$SYS/#']), qos: pick([0, 1, 2]) }],
    }),
  () => generate({ cmd: 'unsubscribe', messageId: 1 + random(9), unsubscriptions: ['#'] }),
  () => generate({ cmd: pick(['puback', 'pubrec', 'pubrel', 'pubcomp']), messageId: 1 + random(9) }),
  () => generate({ cmd: pick(['pingreq', 'disconnect']) }),
  () => bytes(random(40)),
]
const mqttStream = (): Buffer => {
  const stream = Buffer.concat([connect(), ...Array.from({ length: random(8) }, () => pick(packets)())])
  return random(3) === 0 ? stream : mutate(stream)
}
const frameStream = (): Buffer => {
  const parts = Array.from({ length: 1 + random(6) }, () =>
    frame(random(2) ? bytes(random(200)) : mqttStream(), pick([0, 1, 2, 2, 2, 8, 9, 10]), random(4) > 0),
  )
  const stream = Buffer.concat(parts)
  return random(2) ? mutate(stream) : stream
}

/** The kinds of attack: which port, and what is sent. */
const kinds: readonly (() => ['http' | 'https' | 'mqtt', Buffer])[] = [
  () => ['http', bytes(random(500))],
  () => ['http', mutate(handshake())],
  () => [
    'http',
    mutate(
      handshake(
        `Origin: ${bytes(random(40))
          .toString('latin1')
          .replace(/[\r\n]/g, '')}\r\n`,
      ),
    ),
  ],
  () => ['http', Buffer.concat([handshake(), frameStream()])],
  () => ['http', Buffer.concat([handshake(), frame(mqttStream())])],
  () => ['http', Buffer.concat([handshake(), frameStream(), bytes(random(100))])],
  () => ['https', bytes(random(300))],
  () => ['https', Buffer.concat([Buffer.from([0x16, 0x03, 0x01, 0, random(256)]), bytes(random(300))])],
  () => ['mqtt', mqttStream()],
  () => ['mqtt', bytes(random(300))],
]

/** Sends the bytes, cut somewhere, then leaves in one of the ways that there are; resolves when the connection is gone. */
async function attack(port: number, sent: Buffer): Promise<void> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  socket.resume()
  socket.once('end', () => socket.end())
  // A connection that has become a valid MQTT session may stay for ever; this client does not.
  socket.setTimeout(500, () => socket.destroy())
  const cut = random(sent.length + 1)
  const way = random(4)
  socket.write(sent.subarray(0, cut))
  socket.write(sent.subarray(cut), () => {
    if (way === 0) socket.resetAndDestroy()
    else if (way < 3) socket.end()
  })
  // Not `once` of node:events: that rejects with the errors that an attacker has to expect.
  if (!socket.closed) await new Promise<void>(resolve => socket.once('close', () => resolve()))
}

describe(`${attacks} random and mutated handshakes, frame streams and MQTT packets (FUZZ_SEED=${seed})`, () => {
  let gateway: TestGateway
  let bystander: MqttClient
  beforeAll(async () => {
    gateway = await startTestGateway({
      limits: {
        handshakeTimeout: '300ms',
        connectTimeout: '300ms',
        closeTimeout: '200ms',
        connections: 1000,
        // Otherwise most attacks would get no further than a 429.
        upgradesPerSecond: 'off',
      },
      tunnels: [{ path: '/mqtt', pingInterval: '1s' }],
    })
    bystander = await mqtt.connectAsync(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, { reconnectPeriod: 0 })
    await bystander.subscribeAsync('bystander')
  })
  afterAll(async () => {
    bystander?.end(true)
    await gateway?.close()
  })

  it('leave the gateway serving, and a bystander connected', async () => {
    const ports = {
      http: Number(new URL(gateway.urls.http).port),
      https: Number(new URL(gateway.urls.https).port),
      mqtt: gateway.mqttPort,
    }
    let disturbed = false
    bystander.on('close', () => {
      disturbed = true
    })
    const roundTrip = async (): Promise<void> => {
      const payload = randomBytes(8)
      const arrived = nextMessage(bystander)
      await bystander.publishAsync('bystander', payload, { qos: 1 })
      expect((await arrived).payload).toEqual(payload)
      expect(disturbed).toBe(false)
    }
    let left = attacks
    const attacker = async (): Promise<void> => {
      while (left-- > 0) {
        const [port, sent] = pick(kinds)()
        await attack(ports[port], sent)
      }
    }
    let over = false
    const attackers = Promise.all(Array.from({ length: atATime }, attacker)).finally(() => {
      over = true
    })
    while (!over) await roundTrip()
    await attackers
    await roundTrip()
    const health = await fetch(`${gateway.urls.http}/readyz`)
    expect(health.status).toBe(200)
    // The last ones may be on their way out.
    await expect.poll(() => gateway.gateway.connections, { timeout: 20_000 }).toBe(1)
  }, 1_200_000)
})
