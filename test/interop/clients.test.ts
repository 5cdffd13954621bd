import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import mqtt, { type IClientOptions, type IDisconnectPacket, type IPublishPacket, type MqttClient } from 'mqtt'
import { generate, type Packet, parser } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { makeCertificates, type TestCa } from '../broker/upstream/certificates.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { openSource } from '../transports/event-source.js'

/*
 * /v1/clients with real clients: MQTT.js, mosquitto's tools and Paho, at the built-in broker and in front of mosquitto.
 */

interface Listed {
  readonly clientId: string
  readonly connection: string
  readonly [name: string]: unknown
}

const setups = [
  { name: 'the embedded broker', needs: ['openssl', 'mosquitto_sub'], isEmbedded: true },
  { name: 'mosquitto behind the gateway', needs: ['openssl', 'mosquitto', 'mosquitto_sub'], isEmbedded: false },
]

for (const { name, needs, isEmbedded } of setups) {
  describeWith(needs, `connected clients of ${name}`, () => {
    let ca: TestCa
    let gateway: TestGateway
    let upstream: Mosquitto | undefined
    let brokerName = 'embedded'
    const closers: (() => unknown)[] = []
    beforeAll(async () => {
      ca = makeCertificates()
      if (!isEmbedded) {
        upstream = await startMosquitto({ kind: 'tcp' }, [
          'allow_anonymous true',
          'max_packet_size 2000',
          'max_keepalive 100',
        ])
        brokerName = `mqtt://127.0.0.1:${upstream.port}`
      }
      gateway = await startTestGateway({
        https: ca.sign('own', 'DNS:localhost,IP:127.0.0.1'),
        mqtts: { port: 0 },
        push: { ...(upstream && { topics: ['clients/#'] }), clients: { messages: true } },
        ...(upstream ? { broker: brokerName } : { embedded: { maxAnonymousSessions: 100 } }),
      })
    })
    afterAll(async () => {
      for (const close of closers.reverse()) await close()
      await gateway?.close()
      await upstream?.stop()
      rmSync(ca.directory, { recursive: true })
    })

    const mqttjs = async (url: string, options: IClientOptions): Promise<MqttClient> => {
      const common = { rejectUnauthorized: false, reconnectPeriod: 0 }
      const client = await mqtt.connectAsync(url, { ...common, ...options }, false)
      client.on('error', () => {})
      closers.push(() => client.end(true))
      return client
    }
    const program = (command: string, ...args: string[]): RunningProgram => {
      const started = run(command, ['-h', '127.0.0.1', '-p', String(gateway.mqttPort), ...args])
      closers.push(() => started.stop('SIGKILL'))
      return started
    }
    const api = async (path: string, method = 'GET') => {
      const response = await fetch(`${gateway.urls.http}/v1/clients${path}`, { method })
      return { status: response.status, body: JSON.parse(await response.text()) }
    }
    const list = async (query = ''): Promise<Listed[]> => (await api(query)).body.clients
    const find = async (clientId: string): Promise<Listed | undefined> =>
      (await list('?limit=1000')).find(each => each.clientId === clientId)
    const isListed = (clientId: string) => eventually(async () => (await find(clientId)) !== undefined)
    const isAway = (clientId: string) => eventually(async () => (await find(clientId)) === undefined)

    it('are listed with their way in, their version and their counters', async () => {
      const started = Date.now()
      await mqttjs(`${gateway.urls.https.replace('https', 'wss')}/mqtt`, {
        clientId: 'list/js+5',
        protocolVersion: 5,
        username: 'alice',
      })
      await mqttjs(gateway.urls.mqtt, { clientId: 'list-js-4' })
      await mqttjs(gateway.urls.mqtts, { clientId: 'list-js-tls' })
      program('mosquitto_sub', '-i', 'list-sub', '-t', 'a/#', '-V', '311')
      for (const id of ['list/js+5', 'list-js-4', 'list-js-tls', 'list-sub']) await isListed(id)
      if (isEmbedded) await eventually(async () => (await find('list-sub'))?.['subscriptions'] === 1)
      expect(await find('list/js+5')).toMatchObject({
        ...{ username: 'alice', address: '127.0.0.1', protocolVersion: 5, transport: 'websocket', path: '/mqtt' },
        ...{ broker: brokerName, bufferedBytes: 0, bytesIn: expect.any(Number), bytesOut: expect.any(Number) },
        connection: expect.stringMatching(/^[0-9a-z]+$/),
      })
      expect(await find('list-js-4')).toMatchObject({ protocolVersion: 4, transport: 'tcp' })
      expect(await find('list-js-4')).not.toHaveProperty('path')
      expect(await find('list-js-tls')).toMatchObject({ transport: 'tls' })
      const listed = await find('list-sub')
      expect(Date.parse(String(listed?.['since']))).toBeGreaterThanOrEqual(started - 1)
      expect(listed?.['bytesIn']).toBeGreaterThan(20)
      const { body } = await api('/list-sub')
      if (isEmbedded) {
        expect(listed).toMatchObject({ queue: { messages: 0, bytes: 0 } })
        expect(body.clients).toMatchObject([{ clientId: 'list-sub', filters: ['a/#'] }])
      } else {
        expect(listed).not.toHaveProperty('queue')
        expect(body.clients[0]).not.toHaveProperty('filters')
      }
      expect((await api('/list%2Fjs%2B5')).body.clients).toMatchObject([{ clientId: 'list/js+5', username: 'alice' }])
      expect(await api('/nobody')).toMatchObject({ status: 404 })
    })

    it('are found by a part, a beginning, a user and a transport, and come in pages', async () => {
      const ids = Array.from({ length: 7 }, (_, index) => `page-${index}`)
      for (const clientId of ids) await mqttjs(gateway.urls.mqtt, { clientId, username: `user ${clientId}` })
      await mqttjs(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, { clientId: 'other-page-7' })
      await isListed('other-page-7')
      const found = async (query: string) => (await list(query)).map(each => each.clientId)
      expect(await found('?search=page-')).toEqual([...ids, 'other-page-7'])
      expect(await found('?prefix=page-')).toEqual(ids)
      expect(await found('?user=user%20page-3')).toEqual(['page-3'])
      expect(await found('?search=page-&transport=websocket')).toEqual(['other-page-7'])
      const paged: string[] = []
      let next: string | undefined = ''
      let pages = 0
      do {
        const { body } = await api(`?prefix=page-&limit=3&cursor=${next}`)
        paged.push(...body.clients.map((each: Listed) => each.clientId))
        expect(body.connected).toBeGreaterThanOrEqual(8)
        next = body.next
        pages++
      } while (next !== undefined)
      expect([paged, pages]).toEqual([ids, 3])
      expect((await api('?limit=0')).status).toBe(400)
      expect((await api('?cursor=-')).status).toBe(400)
      expect((await api('?transport=x')).status).toBe(400)
    })

    it('of MQTT 5 get DISCONNECT with the reason, and are away', async () => {
      for (const url of [gateway.urls.mqtt, `${gateway.urls.https.replace('https', 'wss')}/mqtt`]) {
        const client = await mqttjs(url, { clientId: 'five', protocolVersion: 5 })
        await isListed('five')
        const told = new Promise<IDisconnectPacket>(resolve => client.once('disconnect', resolve))
        const closed = new Promise<void>(resolve => client.once('close', resolve))
        expect(await api('/five?reason=gone%20wild', 'DELETE')).toEqual({
          status: 200,
          body: { disconnected: 1, session: false },
        })
        expect(await told).toMatchObject({
          reasonCode: 0x98,
          properties: { reasonString: 'An administrator ended the connection: gone wild' },
        })
        await closed
        await isAway('five')
      }
    })

    it('before MQTT 5 are disconnected; those of a WebSocket get a close frame', async () => {
      const program4 = program('mosquitto_sub', '-i', 'four', '-t', 'a', '-V', '311')
      await isListed('four')
      expect((await api('/four', 'DELETE')).status).toBe(200)
      // mosquitto_sub connects again.
      await program4.stop('SIGKILL')
      const socket = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, ['mqtt'])
      await once(socket, 'open')
      socket.send(Buffer.from([0x10, 15, 0, 4, ...Buffer.from('MQTT'), 4, 2, 0, 60, 0, 3, ...Buffer.from('raw')]))
      await isListed('raw')
      const closed = once(socket, 'close')
      const [connection] = (await list('?search=raw')).map(each => each.connection)
      expect(await api(`?connection=${connection}&reason=too%20loud`, 'DELETE')).toMatchObject({ status: 200 })
      const [code, reason] = await closed
      expect([code, String(reason)]).toEqual([1008, 'An administrator ended the connection: too loud'])
      await isAway('raw')
      expect((await api(`?connection=${connection}`, 'DELETE')).status).toBe(404)
    })

    it('of Paho over wss are listed and disconnected', async () => {
      const { Client, restore } = await loadPaho()
      try {
        const { port } = new URL(gateway.urls.https)
        const client = new Client('127.0.0.1', Number(port), '/mqtt', 'paho')
        const lost = new Promise<{ errorCode: number }>(resolve => {
          client.onConnectionLost = resolve
        })
        await new Promise((resolve, reject) => client.connect({ useSSL: true, onSuccess: resolve, onFailure: reject }))
        await isListed('paho')
        expect(await find('paho')).toMatchObject({ protocolVersion: 4, transport: 'websocket' })
        expect((await api('/paho', 'DELETE')).status).toBe(200)
        expect((await lost).errorCode).toBeGreaterThan(0)
        await isAway('paho')
      } finally {
        restore()
      }
    })

    it('are told of over MQTT and as events, if that is on', async () => {
      await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
      const messages: IPublishPacket[] = []
      const watcher = await mqttjs(gateway.urls.mqtt, { clientId: 'watcher' })
      watcher.on('message', (_topic, _payload, packet) => messages.push(packet))
      await watcher.subscribeAsync('clients/told%2Fof%2B/#', { qos: 2 })
      const stream = await openSource(`${gateway.urls.http}/v1/events?topic=clients/told%252Fof%252B/%23`)
      closers.push(() => stream.leave())
      const url = `${gateway.urls.http.replace('http', 'ws')}/mqtt`
      const client = await mqttjs(url, { clientId: 'told/of+', username: 'alice', protocolVersion: 5 })
      await eventually(() => messages.length === 1)
      await client.endAsync()
      await eventually(() => messages.length === 2)
      await stream.messages(2)
      const topics = ['connected', 'disconnected'].map(event => `clients/told%2Fof%2B/${event}`)
      expect(messages).toMatchObject(topics.map(topic => ({ topic, qos: 0, retain: false })))
      expect(stream.of('message').map(({ topic }) => topic)).toEqual(topics)
      const common = {
        clientId: 'told/of+',
        protocolVersion: 5,
        transport: 'websocket',
        path: '/mqtt',
      }
      expect(messages.map(({ payload }) => JSON.parse(payload.toString()))).toMatchObject([
        { event: 'connected', ...common },
        { event: 'disconnected', ...common, reason: expect.stringMatching(/^client-/), seconds: expect.any(Number) },
      ])
    })

    it('without a client id are not meant by an empty one', async () => {
      const socket = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, ['mqtt'])
      closers.push(() => socket.terminate())
      await once(socket, 'open')
      socket.send(Buffer.from([0x10, 12, 0, 4, ...Buffer.from('MQTT'), 4, 2, 0, 60, 0, 0]))
      const [bytes] = await once(socket, 'message')
      expect(bytes).toEqual(Buffer.from([0x20, 2, 0, 0]))
      const listed = (await list('?limit=1000')).at(-1)
      // The built-in broker tells which one it has made.
      if (isEmbedded) expect(listed?.clientId).toMatch(/./)
      else expect(listed?.clientId).toBe('')
      expect(await api('/', 'DELETE')).toMatchObject({ status: 404 })
      expect(await api('/')).toMatchObject({ status: 404 })
      const closed = once(socket, 'close')
      expect(await api(`?connection=${listed?.connection}`, 'DELETE')).toMatchObject({ status: 200 })
      await closed
    })

    it('with an assigned client id have that', async () => {
      const { hostname, port } = new URL(gateway.urls.mqtt)
      const socket = connectTcp(Number(port), hostname)
      closers.push(() => socket.destroy())
      const reader = parser({ protocolVersion: 5 })
      const connack = new Promise<Packet>(resolve => reader.on('packet', resolve))
      socket.on('data', bytes => reader.parse(bytes))
      socket.write(
        generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clean: true, keepalive: 60, clientId: '' }),
      )
      const packet = await connack
      const id = packet.cmd === 'connack' ? packet.properties?.assignedClientIdentifier : undefined
      expect(id).toMatch(/./)
      await isListed(String(id))
    })

    if (isEmbedded) {
      it('lose their session where that is wanted, also while they are absent', async () => {
        for (const protocolVersion of [5, 4] as const) {
          const options = {
            ...{ clientId: 'kept', clean: false, protocolVersion },
            ...(protocolVersion === 5 && { properties: { sessionExpiryInterval: 1000 } }),
          }
          const open = async (): Promise<boolean> => {
            const client = mqtt.connect(gateway.urls.mqtt, { ...options, reconnectPeriod: 0 })
            client.on('error', () => {})
            closers.push(() => client.end(true))
            return new Promise(resolve => client.once('connect', ({ sessionPresent }) => resolve(sessionPresent)))
          }
          expect(await open()).toBe(false)
          await isListed('kept')
          expect((await api('/kept', 'DELETE')).body).toEqual({ disconnected: 1, session: false })
          await isAway('kept')
          expect(await open()).toBe(true)
          await isListed('kept')
          expect((await api('/kept?session=true', 'DELETE')).body).toEqual({ disconnected: 1, session: true })
          await isAway('kept')
          expect(await open()).toBe(false)
          await isListed('kept')
          expect((await api('/kept', 'DELETE')).status).toBe(200)
          await isAway('kept')
          expect((await api('/kept?session=true', 'DELETE')).body).toEqual({ disconnected: 0, session: true })
          await eventually(async () => (await api('/kept?session=true', 'DELETE')).status === 404)
          expect(await open()).toBe(false)
          await isListed('kept')
          expect((await api('/kept?session=true', 'DELETE')).status).toBe(200)
          await isAway('kept')
        }
      })
    } else {
      it('keep their session at another broker, which is said', async () => {
        expect(await api('/anybody?session=true', 'DELETE')).toMatchObject({
          status: 400,
          body: { parameter: 'session' },
        })
      })
    }
  })
}

describeWith(['mosquitto', 'mosquitto_passwd'], 'a client that mosquitto refuses', () => {
  it('is not in the list', async () => {
    const upstream = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous false'])
    const gateway = await startTestGateway({ broker: `mqtt://127.0.0.1:${upstream.port}` })
    try {
      for (const protocolVersion of [5, 4] as const) {
        const client = mqtt.connect(gateway.urls.mqtt, { clientId: 'refused', protocolVersion, reconnectPeriod: 0 })
        await new Promise(resolve => client.once('error', resolve))
        const response = await fetch(`${gateway.urls.http}/v1/clients`)
        expect(await response.json()).toEqual({ connected: 0, clients: [] })
        client.end(true)
      }
    } finally {
      await gateway.close()
      await upstream.stop()
    }
  })
})

interface PahoClient {
  onConnectionLost: (response: { errorCode: number }) => void
  connect(options: object): void
}

/** Paho runs in a browser: it takes WebSocket and localStorage from the global scope. */
async function loadPaho() {
  class TrustingSocket extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols, { rejectUnauthorized: false })
    }
  }
  const kept = new Map<string, string>()
  const localStorage = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  }
  const names = ['WebSocket', 'localStorage'] as const
  const before = names.map(each => Object.getOwnPropertyDescriptor(globalThis, each))
  const stubs = { WebSocket: TrustingSocket, localStorage }
  for (const each of names) Object.defineProperty(globalThis, each, { value: stubs[each], configurable: true })
  // It has no types.
  const packageName: string = 'paho-mqtt'
  const { default: paho } = (await import(packageName)) as unknown as {
    default: { Client: new (host: string, port: number, path: string, clientId: string) => PahoClient }
  }
  const restore = (): void => {
    for (const [index, each] of names.entries()) {
      const descriptor = before[index]
      if (descriptor) Object.defineProperty(globalThis, each, descriptor)
      else Reflect.deleteProperty(globalThis, each)
    }
  }
  return { Client: paho.Client, restore }
}

describe('the list of clients', () => {
  it('is not open to pages of other origins, whatever push allows', async () => {
    const gateway = await startTestGateway({ push: { origins: ['*'] } })
    try {
      const url = `${gateway.urls.http}/v1/clients`
      const foreign = { headers: { origin: 'https://evil.example' } }
      expect((await fetch(url, foreign)).status).toBe(403)
      expect((await fetch(`${url}/x`, { ...foreign, method: 'DELETE' })).status).toBe(403)
      expect((await fetch(url, { ...foreign, method: 'OPTIONS' })).status).toBe(403)
      expect((await fetch(url, { headers: { origin: gateway.urls.http } })).status).toBe(200)
    } finally {
      await gateway.close()
    }
  })
})
