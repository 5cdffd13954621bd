import { rmSync } from 'node:fs'
import mqtt, { type IClientOptions, type IPublishPacket, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeCertificates, type TestCa } from '../broker/upstream/certificates.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

const python = new URL('./paho_mqtt5.py', import.meta.url).pathname

/** The ways in. */
const ways = ['tcp', 'tls', 'ws', 'wss'] as const
type Way = (typeof ways)[number]

const properties = {
  payloadFormatIndicator: true,
  messageExpiryInterval: 100,
  contentType: 'text/plain',
  responseTopic: 'answers',
  correlationData: Buffer.from([0, 1, 255]),
  userProperties: { a: ['1', '2'], b: 'x' },
}

/** What stands behind the gateway in a run of this suite. */
const setups = [
  { name: 'the embedded broker', needs: ['openssl'], isEmbedded: true },
  { name: 'mosquitto behind the gateway', needs: ['openssl', 'mosquitto'], isEmbedded: false },
]

for (const { name, needs, isEmbedded } of setups) {
  describeWith(needs, `MQTT 5 with ${name}`, () => {
    let ca: TestCa
    let gateway: TestGateway
    let upstream: Mosquitto | undefined
    const closers: (() => unknown)[] = []
    beforeAll(async () => {
      ca = makeCertificates()
      if (!isEmbedded) upstream = await startMosquitto()
      gateway = await startTestGateway({
        https: ca.sign('own', 'DNS:localhost,IP:127.0.0.1'),
        mqtts: { port: 0 },
        ...(upstream ? { broker: `mqtt://127.0.0.1:${upstream.port}` } : { embedded: { maxAnonymousSessions: 100 } }),
      })
    })
    afterAll(async () => {
      for (const close of closers.reverse()) await close()
      await gateway?.close()
      await upstream?.stop()
      rmSync(ca.directory, { recursive: true })
    })

    const urlOf = (way: Way): string => {
      const { urls } = gateway
      return {
        tcp: urls.mqtt,
        tls: urls.mqtts,
        ws: `${urls.http.replace('http', 'ws')}/mqtt`,
        wss: `${urls.https.replace('https', 'wss')}/mqtt`,
      }[way]
    }
    const mqttjs = async (way: Way, options: IClientOptions = {}): Promise<MqttClient> => {
      const common = { protocolVersion: 5, rejectUnauthorized: false, reconnectPeriod: 0 } as const
      const client = await mqtt.connectAsync(urlOf(way), { ...common, ...options }, false)
      closers.push(() => client.endAsync(true))
      return client
    }
    const nextPacket = (client: MqttClient): Promise<IPublishPacket> =>
      new Promise(resolve => client.once('message', (_topic, _payload, packet) => resolve(packet)))
    const program = (command: string, ...args: string[]): RunningProgram => {
      const started = run(command, args)
      // mosquitto_sub disconnects within its signal handler, where it can wait for ever.
      closers.push(() => started.stop('SIGKILL'))
      return started
    }
    /** Arguments of mosquitto_pub and mosquitto_sub. */
    const target = (way: 'tcp' | 'tls'): string[] =>
      way === 'tcp'
        ? ['-h', '127.0.0.1', '-p', String(gateway.mqttPort)]
        : ['-h', 'localhost', '-p', String(gateway.mqttsPort), '--cafile', ca.ca]

    describe.each(ways)('MQTT.js over %s', way => {
      it.each([0, 1, 2] as const)('passes properties on at QoS %i, and to wss', async qos => {
        const [publisher, here, far] = [await mqttjs(way), await mqttjs(way), await mqttjs('wss')]
        const topic = `js/${way}/${qos}`
        for (const client of [here, far]) await client.subscribeAsync(topic, { qos })
        const arrived = Promise.all([nextPacket(here), nextPacket(far)])
        await publisher.publishAsync(topic, 'x', { qos, properties })
        for (const packet of await arrived) {
          expect(packet).toMatchObject({ payload: Buffer.from('x'), qos })
          // At most a second has been counted.
          const { messageExpiryInterval, ...rest } = packet.properties ?? {}
          expect(messageExpiryInterval).toBeOneOf([99, 100])
          expect(JSON.parse(JSON.stringify(rest))).toEqual(
            JSON.parse(JSON.stringify({ ...properties, messageExpiryInterval: undefined })),
          )
        }
      })

      it('a client of 3.1.1 sees the message of one of 5 without its properties, and the other way round', async () => {
        const [five, four] = [await mqttjs(way), await mqttjs(way, { protocolVersion: 4 })]
        const topic = `versions/${way}`
        for (const client of [five, four]) await client.subscribeAsync(topic, { qos: 2 })
        let arrived = Promise.all([nextPacket(five), nextPacket(four)])
        await five.publishAsync(topic, 'from 5', { qos: 2, properties: { ...properties, topicAlias: 1 } })
        const [atFive, atFour] = await arrived
        expect([atFive.properties?.contentType, atFour.properties]).toEqual(['text/plain', undefined])
        expect([atFive, atFour]).toMatchObject(Array(2).fill({ topic, payload: Buffer.from('from 5'), qos: 2 }))
        arrived = Promise.all([nextPacket(five), nextPacket(four)])
        await four.publishAsync(topic, 'from 4', { qos: 1 })
        expect(await arrived).toMatchObject(Array(2).fill({ topic, payload: Buffer.from('from 4'), qos: 1 }))
      })

      it('a retained message of one version is there for the others', async () => {
        const [five, four] = [await mqttjs(way), await mqttjs(way, { protocolVersion: 4 })]
        await five.publishAsync(`kept/${way}/5`, '5', { qos: 1, retain: true, properties })
        await four.publishAsync(`kept/${way}/4`, '4', { qos: 1, retain: true })
        for (const version of [5, 4] as const) {
          for (const protocolVersion of [5, 4, 3] as const) {
            const reader = await mqttjs(way, {
              protocolVersion,
              ...(protocolVersion === 3 ? { protocolId: 'MQIsdp' } : {}),
            })
            const arrived = nextPacket(reader)
            await reader.subscribeAsync(`kept/${way}/${version}`)
            const packet = await arrived
            expect(packet).toMatchObject({ payload: Buffer.from(String(version)), retain: true })
            const contentType = protocolVersion === 5 && version === 5 ? 'text/plain' : undefined
            expect(packet.properties?.contentType).toBe(contentType)
          }
        }
      })

      it('a session of one version is resumed with the other', async () => {
        const clientId = `resumed-${way}-${name.length}`
        const session = { clean: false, clientId, properties: { sessionExpiryInterval: 60 } }
        const first = await mqttjs(way, session)
        await first.subscribeAsync(`resumed/${way}`, { qos: 1 })
        await first.endAsync()
        const publisher = await mqttjs(way)
        await publisher.publishAsync(`resumed/${way}`, '1', { qos: 1, properties })
        const second = mqtt.connect(urlOf(way), {
          ...{ clean: false, clientId, protocolVersion: 4, reconnectPeriod: 0, rejectUnauthorized: false },
        })
        closers.push(() => second.endAsync(true))
        expect(await nextPacket(second)).toMatchObject({ payload: Buffer.from('1'), qos: 1 })
      })

      it('a shared subscription has members of both versions', async () => {
        const members = [await mqttjs(way), await mqttjs(way, { protocolVersion: 4 })]
        const received: string[][] = [[], []]
        let count = 0
        const all = new Promise<void>(resolve => {
          members.forEach((member, index) => {
            member.on('message', (_topic, payload) => {
              received[index]?.push(String(payload))
              if (++count === 10) resolve()
            })
          })
        })
        for (const member of members) await member.subscribeAsync(`$share/both/shared/${way}`, { qos: 1 })
        const publisher = await mqttjs(way)
        const expected = Array.from({ length: 10 }, (_, n) => String(n))
        for (const payload of expected) await publisher.publishAsync(`shared/${way}`, payload, { qos: 1 })
        await all
        expect(received.flat().sort()).toEqual(expected)
        expect(received.every(payloads => payloads.length > 0)).toBe(true)
      })

      it('uses topic aliases both ways', async () => {
        const publisher = await mqttjs(way, { autoUseTopicAlias: true, autoAssignTopicAlias: true })
        const subscriber = await mqttjs(way, { properties: { topicAliasMaximum: 5 } })
        await subscriber.subscribeAsync(`alias/${way}/#`, { qos: 1 })
        const topics: string[] = []
        const all = new Promise<void>(resolve => {
          subscriber.on('message', topic => {
            topics.push(topic)
            if (topics.length === 9) resolve()
          })
        })
        const expected = Array.from({ length: 9 }, (_, n) => `alias/${way}/${n % 3}`)
        for (const topic of expected) await publisher.publishAsync(topic, 'x', { qos: 1 })
        await all
        expect(topics).toEqual(expected)
      })
    })

    describeWith(['mosquitto_pub', 'mosquitto_sub', 'stdbuf'], 'with the command line tools', () => {
      describe.each(['tcp', 'tls'] as const)('over %s', way => {
        const subscribed = async (...args: string[]): Promise<RunningProgram> => {
          // Its output to a pipe would wait for a full buffer.
          const subscriber = program('stdbuf', '-oL', 'mosquitto_sub', '-d', ...target(way), ...args)
          while (!(await subscriber.line()).includes('received SUBACK'));
          return subscriber
        }
        const lineOf = async (subscriber: RunningProgram, start: string): Promise<string> => {
          for (;;) {
            const line = await subscriber.line()
            if (line.startsWith(start)) return line
          }
        }

        it('properties with -D come to MQTT.js and to mosquitto_sub -V 5', async () => {
          const topic = `tools/${way}`
          const subscriber = await subscribed('-V', '5', '-t', topic, '-q', '1', '-F', 'got %p|%C|%R|%D|%P|%q')
          const old = await subscribed('-V', 'mqttv311', '-t', topic, '-F', 'got %p|%C|%R|%P')
          const client = await mqttjs('wss')
          await client.subscribeAsync(topic, { qos: 1 })
          const arrived = nextPacket(client)
          const given = [
            ['payload-format-indicator', '1'],
            ['content-type', 'text/plain'],
            ['response-topic', 'answers'],
            ['correlation-data', 'id 1'],
            ['user-property', 'a', '1'],
            ['user-property', 'b', '2'],
          ].flatMap(each => ['-D', 'publish', ...each])
          const message = ['-t', topic, '-m', 'x', '-q', '1']
          const publisher = program('mosquitto_pub', ...target(way), '-V', '5', ...message, ...given)
          expect([await publisher.exited(), publisher.errors()]).toEqual([0, ''])
          expect((await arrived).properties).toMatchObject({
            payloadFormatIndicator: true,
            contentType: 'text/plain',
            responseTopic: 'answers',
            correlationData: Buffer.from('id 1'),
            userProperties: { a: '1', b: '2' },
          })
          expect(await lineOf(subscriber, 'got')).toBe('got x|text/plain|answers|id 1|a:1 b:2|1')
          expect(await lineOf(old, 'got')).toBe('got x|||')
        })

        it('a session with -x and -c, a will with -D, and no local', async () => {
          const id = `tools-${way}-${name.length}`
          const args = ['-V', '5', '-i', id, '-c', '-x', '60', '-t', `tools-session/${way}`, '-q', '1']
          const first = await subscribed(...args)
          await first.stop('SIGKILL')
          const client = await mqttjs('tcp')
          await client.publishAsync(`tools-session/${way}`, 'kept', { qos: 1, properties })
          const second = program('stdbuf', '-oL', 'mosquitto_sub', ...target(way), ...args, '-F', 'got %p %C')
          expect(await lineOf(second, 'got')).toBe('got kept text/plain')
        })

        it('mosquitto_pub is told why not', async () => {
          const publisher = program(
            'mosquitto_pub',
            ...target(way),
            '-V',
            '5',
            '-d',
            '-t',
            'nobody/there',
            '-m',
            'x',
            '-q',
            '1',
          )
          expect(await publisher.exited()).toBe(0)
          const output: string[] = []
          for (;;) {
            const line = await publisher.line().catch(() => undefined)
            if (line === undefined) break
            output.push(line)
          }
          expect(output.join('\n')).toMatch(/received PUBACK \(Mid: 1, RC:(0|16)\)/)
        })
      })
    })

    describeWith(['python3-paho-mqtt'], 'with Python', () => {
      it.each(ways)('over %s', async way => {
        const topic = `python5/${way}`
        const url = new URL(urlOf(way))
        const args = ['127.0.0.1', url.port, way, topic, topic, 'from python']
        const receiver = await mqttjs('tcp')
        await receiver.subscribeAsync(topic, { qos: 2 })
        const arrived = nextPacket(receiver)
        const client = program('/usr/bin/python3', python, ...args)
        expect(JSON.parse(await client.line())).toMatchObject({ connack: { code: 0 } })
        expect(JSON.parse(await client.line())).toEqual({ suback: [2] })
        expect(JSON.parse(await client.line())).toMatchObject({
          topic,
          payload: 'from python',
          qos: 2,
          properties: {
            PayloadFormatIndicator: 1,
            ContentType: 'text/plain',
            ResponseTopic: 'python/answers',
            CorrelationData: '0001ff',
            UserProperty: [
              ['b', '2'],
              ['a', '1'],
              ['b', '1'],
            ],
            SubscriptionIdentifier: [77],
          },
        })
        expect(await client.exited()).toBe(0)
        expect((await arrived).properties).toMatchObject({
          contentType: 'text/plain',
          userProperties: { b: ['2', '1'] },
        })
      })
    })
  })
}

describeWith('mosquitto', 'a bridge of mosquitto with MQTT 5', () => {
  it.each([
    ['mqttv50', true],
    ['mqttv311', false],
  ])('with %s passes messages on in both directions, properties: %s', async (version, hasProperties) => {
    const closers: (() => unknown)[] = []
    const gateway = await startTestGateway({ https: { port: 'off' } })
    try {
      const bridge = ['connection mqway', `address 127.0.0.1:${gateway.mqttPort}`, `bridge_protocol_version ${version}`]
      const topics = ['topic up/# out 2', 'topic down/# in 2', 'restart_timeout 1', 'notifications_local_only true']
      const mosquitto = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', ...bridge, ...topics])
      closers.push(() => mosquitto.stop())
      const options = { reconnectPeriod: 0, protocolVersion: 5 } as const
      const near = await mqtt.connectAsync(gateway.urls.mqtt, options)
      const far = await mqtt.connectAsync(`mqtt://127.0.0.1:${mosquitto.port}`, options)
      closers.push(
        () => near.endAsync(true),
        () => far.endAsync(true),
      )
      for (const [from, to, topic] of [
        [far, near, 'up/x'],
        [near, far, 'down/x'],
      ] as const) {
        await to.subscribeAsync(topic, { qos: 2 })
        const arrived = new Promise<IPublishPacket>(resolve => to.once('message', (_t, _p, packet) => resolve(packet)))
        // The bridge may not be there yet.
        const timer = setInterval(() => from.publish(topic, 'x', { qos: 2, properties }), 50)
        const packet = await arrived
        clearInterval(timer)
        expect(packet).toMatchObject({ topic, payload: Buffer.from('x'), qos: 2 })
        if (hasProperties)
          expect(packet.properties).toMatchObject({ contentType: 'text/plain', responseTopic: 'answers' })
        else expect(packet.properties?.contentType).toBeUndefined()
      }
    } finally {
      for (const close of closers.reverse()) await close()
      await gateway.close()
    }
  })
})
