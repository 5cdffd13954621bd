import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import mqtt, { type IClientOptions, MqttClient } from 'mqtt'
import { generate, type Packet, parser } from 'mqtt-packet'
import { afterAll, beforeAll, expect, it } from 'vitest'
import websocketStream from 'websocket-stream'
import { WebSocket } from 'ws'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const python = new URL('./paho_client.py', import.meta.url).pathname

/** What stands behind the gateway in a run of this suite. */
interface Setup {
  readonly name: string
  readonly needs: string[]
  readonly versions: readonly (3 | 4 | 5)[]
  start(): Promise<{ gateway: TestGateway; stop(): Promise<void> }>
}

const setups: Setup[] = [
  {
    name: 'the embedded broker',
    needs: [],
    versions: [3, 4, 5],
    start: async () => {
      const gateway = await startTestGateway({ mqtts: { port: 0 } })
      return { gateway, stop: () => gateway.close() }
    },
  },
  {
    name: 'mosquitto behind the gateway',
    needs: ['mosquitto'],
    versions: [3, 4, 5],
    start: async () => {
      const mosquitto: Mosquitto = await startMosquitto()
      const gateway = await startTestGateway({ broker: `mqtt://127.0.0.1:${mosquitto.port}`, mqtts: { port: 0 } })
      return {
        gateway,
        stop: async () => {
          await gateway.close()
          await mosquitto.stop()
        },
      }
    },
  },
]

for (const setup of setups) {
  describeWith(setup.needs, `clients of ${setup.name}`, () => {
    let gateway: TestGateway
    let stop: () => Promise<void>
    const closers: (() => unknown)[] = []
    const programs: RunningProgram[] = []
    beforeAll(async () => {
      const started = await setup.start()
      gateway = started.gateway
      stop = started.stop
    })
    afterAll(async () => {
      for (const close of closers) close()
      await Promise.all(programs.map(program => program.stop()))
      await stop?.()
    })
    const wss = (): string => `${gateway.urls.https.replace('https', 'wss')}/mqtt`
    const program = (command: string, ...args: string[]): RunningProgram => {
      const started = run(command, args)
      programs.push(started)
      return started
    }
    const mosquittoPub = async (...args: string[]): Promise<void> => {
      const publisher = program('mosquitto_pub', '-p', String(gateway.mqttPort), ...args)
      expect([await publisher.exited(), publisher.errors()]).toEqual([0, ''])
    }
    const mqttjs = async (options: IClientOptions = {}): Promise<MqttClient> => {
      const client = await mqtt.connectAsync(wss(), { rejectUnauthorized: false, reconnectPeriod: 0, ...options })
      closers.push(() => client.end(true))
      return client
    }
    describeWith(['mosquitto_pub'], 'with the command line tools', () => {
      it('the walk-through of the article: /news/+/sport over wss, mosquitto_pub on the MQTT port', async () => {
        const client = await mqttjs()
        await client.subscribeAsync('/news/+/sport', { qos: 1 })
        const arrived = nextMessage(client)
        await mosquittoPub('-t', '/news/europe/sport', '-q', '1', '-m', 'this is the message about european sports')
        const { topic, payload, qos } = await arrived
        expect([topic, String(payload), qos]).toEqual([
          '/news/europe/sport',
          'this is the message about european sports',
          1,
        ])
      })

      it('what a browser publishes reaches mosquitto_sub and Python', async () => {
        // Its output to a pipe would wait for a full buffer.
        const subscriber = program(
          'stdbuf',
          '-oL',
          'mosquitto_sub',
          '-d',
          '-v',
          '-p',
          String(gateway.mqttPort),
          '-t',
          '/out/#',
        )
        while (!(await subscriber.line()).includes('received SUBACK'));
        const python3 = program('/usr/bin/python3', python, '127.0.0.1', String(gateway.mqttPort), 'tcp', '4', '/out/#')
        expect(await python3.line()).toBe('ready')
        const client = await mqttjs()
        await client.publishAsync('/out/there', 'hello', { qos: 1 })
        expect(JSON.parse(await python3.line())).toMatchObject({ topic: '/out/there', payload: 'hello' })
        let line = ''
        while (!line.startsWith('/out')) line = await subscriber.line()
        expect(line).toBe('/out/there hello')
      })
    })

    describeWith(['python3-paho-mqtt'], 'with Python', () => {
      for (const version of setup.versions) {
        for (const transport of ['tcp', 'tls', 'ws', 'wss']) {
          it(`paho speaks MQTT ${version} over ${transport}`, async () => {
            const { mqtt: tcp, mqtts: tls, http: ws, https: wss } = gateway.urls
            const port = { tcp, tls, ws, wss }[transport]
            const topic = `python/${transport}/${version}`
            const args = [
              '127.0.0.1',
              new URL(port ?? '').port,
              transport,
              String(version),
              `python/+/${version}`,
              topic,
              'from python',
            ]
            const client = program('/usr/bin/python3', python, ...args)
            expect(await client.line()).toBe('ready')
            expect(JSON.parse(await client.line())).toEqual({ topic, payload: 'from python', qos: 1 })
            expect(await client.exited()).toBe(0)
          })
        }
      }
    })

    for (const version of setup.versions) {
      it(`MQTT.js speaks MQTT ${version} over wss, with subprotocol ${version === 3 ? 'mqttv3.1' : 'mqtt'}`, async () => {
        const client = await mqttjs({ protocolVersion: version, ...(version === 3 ? { protocolId: 'MQIsdp' } : {}) })
        await client.subscribeAsync(`js/${version}`, { qos: 1 })
        const arrived = nextMessage(client)
        await client.publishAsync(`js/${version}`, 'x', { qos: 1 })
        expect(String((await arrived).payload)).toBe('x')
      })
    }

    it('websocket-stream, the client of old Node programs, works', async () => {
      const stream = (): Duplex => websocketStream(wss(), 'mqtt', { rejectUnauthorized: false })
      const client = new MqttClient(stream, { reconnectPeriod: 0, protocolVersion: 4 })
      closers.push(() => client.end(true))
      await new Promise<void>(resolve => client.once('connect', () => resolve()))
      await client.subscribeAsync('legacy')
      const arrived = nextMessage(client)
      await client.publishAsync('legacy', Buffer.alloc(100_000, 'x'))
      expect((await arrived).payload.length).toBe(100_000)
    })

    it('packets may be split across frames, share frames, and have empty frames between them', async () => {
      const { packets, send } = await rawMqtt(wss(), closers)
      const bytes = Buffer.concat([
        generate({ cmd: 'connect', clientId: 'split', protocolVersion: 4, clean: true, keepalive: 0 }),
        generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'split/+', qos: 0 }] }),
      ])
      for (const byte of bytes) send(Buffer.from([byte]))
      await eventually(() => packets.some(packet => packet.cmd === 'suback'))
      const publish = (n: number): Buffer =>
        generate({ cmd: 'publish', topic: `split/${n}`, payload: String(n), qos: 0, retain: false, dup: false })
      const many = Buffer.concat(Array.from({ length: 100 }, (_, n) => publish(n)))
      send(many.subarray(0, 333))
      send(Buffer.alloc(0))
      send(many.subarray(333))
      await eventually(() => packets.filter(packet => packet.cmd === 'publish').length === 100)
      const topics = packets.flatMap(packet => (packet.cmd === 'publish' ? [packet.topic] : []))
      expect(topics).toEqual(Array.from({ length: 100 }, (_, n) => `split/${n}`))
    })

    it('a text frame ends the connection with 1003 and a sentence', async () => {
      const { socket } = await rawMqtt(wss(), closers)
      socket.send('hello')
      const [code, reason] = await once(socket, 'close')
      expect(code).toBe(1003)
      expect(String(reason)).toBe('MQTT travels in binary frames; this was a text frame: connect with binary frames')
    })

    it('a retained message of 10 MB arrives whole, at publishing and at subscribing', async () => {
      const payload = randomBytes(10 * 1024 ** 2)
      const publisher = await mqttjs()
      await publisher.publishAsync('large', payload, { retain: true, qos: 1 })
      const subscriber = await mqttjs()
      const arrived = nextMessage(subscriber)
      await subscriber.subscribeAsync('large')
      const received = await arrived
      expect(received.retain).toBe(true)
      expect(received.payload.equals(payload)).toBe(true)
      await publisher.publishAsync('large', '', { retain: true, qos: 1 })
    })

    it('wildcards match as MQTT says: +, #, a leading slash, and $SYS only by its name', async () => {
      const client = await mqttjs()
      const seen: string[] = []
      const subscriber = await mqttjs()
      subscriber.on('message', topic => seen.push(topic))
      await subscriber.subscribeAsync(['/w/+/end', 'w/#'])
      for (const topic of ['/w/a/end', '/w/end', '/w/a/b/end', 'w', 'w/x', 'w/x/y', '/w'])
        await client.publishAsync(topic, 'm', { qos: 1 })
      await client.publishAsync('w/last', 'm', { qos: 1 })
      await eventually(() => seen.includes('w/last'))
      expect(seen).toEqual(['/w/a/end', 'w', 'w/x', 'w/x/y', 'w/last'])

      const everything = await mqttjs()
      const topics: string[] = []
      everything.on('message', topic => topics.push(topic))
      await everything.subscribeAsync('#')
      await client.publishAsync('after', 'm', { qos: 1 })
      await eventually(() => topics.includes('after'))
      expect(topics.filter(topic => topic.startsWith('$'))).toEqual([])

      const system = await mqttjs()
      const arrived = nextMessage(system)
      await system.subscribeAsync('$SYS/broker/version')
      expect(String((await arrived).payload)).not.toBe('')
    })

    it('a client that is told no by the broker sees the CONNACK, then a clean end', async () => {
      const { packets, send, socket } = await rawMqtt(wss(), closers)
      // MQTT 3.1.1 with an empty client id and without clean session must be refused [MQTT-3.1.3-8].
      send(
        generate({ cmd: 'connect', clientId: '', protocolVersion: 4, clean: true, keepalive: 0 }).map((byte, i) =>
          i === 9 ? 0 : byte,
        ) as Buffer,
      )
      const [code] = await once(socket, 'close')
      expect(code).toBe(1000)
      expect(packets).toMatchObject([{ cmd: 'connack', returnCode: 2 }])
    })
  })
}

/** A WebSocket on which a test sends what no client library would. */
async function rawMqtt(
  url: string,
  closers: (() => unknown)[],
): Promise<{ socket: WebSocket; packets: Packet[]; send(bytes: Buffer): void }> {
  const socket = new WebSocket(url, 'mqtt', { rejectUnauthorized: false })
  closers.push(() => socket.terminate())
  const packets: Packet[] = []
  const decoder = parser()
  decoder.on('packet', packet => packets.push(packet))
  socket.on('message', data => decoder.parse(data as Buffer))
  await once(socket, 'open')
  return { socket, packets, send: bytes => socket.send(bytes) }
}
