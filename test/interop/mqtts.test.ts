import { copyFileSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type PeerCertificate } from 'node:tls'
import mqtt, { type IClientOptions, type IPublishPacket, type MqttClient } from 'mqtt'
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { makeCertificates, type TestCa } from '../broker/upstream/certificates.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { People } from '../helpers/people.js'
import { type RunningProgram, run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

let ca: TestCa
/** A certificate of the CA for localhost. */
let own: { readonly cert: string; readonly key: string }
/** A CONNECT of MQTT 3.1.1. */
const connect = Buffer.from('101000044d5154540402003c000474657374', 'hex')
const closers: (() => unknown)[] = []
beforeEach(() => {
  ca = makeCertificates()
  own = ca.sign('own', 'DNS:localhost,IP:127.0.0.1')
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  rmSync(ca.directory, { recursive: true })
})

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: own, mqtts: { port: 0 }, ...config })
  closers.push(() => gateway.close())
  return gateway
}

function program(command: string, ...args: string[]): RunningProgram {
  const started = run(command, args)
  closers.push(() => started.stop())
  return started
}

/** Arguments of mosquitto_pub and mosquitto_sub. */
const target = ({ mqttsPort }: TestGateway): string[] => ['-h', 'localhost', '-p', String(mqttsPort), '--cafile', ca.ca]

async function mqttjs({ urls }: TestGateway, options: IClientOptions = {}): Promise<MqttClient> {
  const trust = { ca: readFileSync(ca.ca), reconnectPeriod: 0, ...options }
  const client = await mqtt.connectAsync(urls.mqtts, trust, false)
  closers.push(() => client.end(true))
  return client
}

/** Subscribes with mosquitto_sub; resolves when the broker has granted it. */
async function subscribed(...args: string[]): Promise<RunningProgram> {
  // Its output to a pipe would wait for a full buffer.
  const subscriber = program('stdbuf', '-oL', 'mosquitto_sub', '-d', '-v', ...args)
  while (!(await subscriber.line()).includes('received SUBACK'));
  return subscriber
}

async function shown({ mqttsPort }: TestGateway, servername: string): Promise<PeerCertificate> {
  const socket = connectTls({ port: mqttsPort, host: '127.0.0.1', servername, ca: readFileSync(ca.ca) })
  await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject))
  const certificate = socket.getPeerCertificate()
  socket.destroy()
  return certificate
}

const tools = ['openssl', 'mosquitto', 'mosquitto_pub', 'mosquitto_sub', 'stdbuf']

describeWith(tools, 'MQTT over TLS', () => {
  it('carries messages between mosquitto’s tools and MQTT.js, and plain MQTT, and is in the metrics', async () => {
    const gateway = await start()
    expect(gateway.urls.mqtts).toBe(`mqtts://localhost:${gateway.mqttsPort}`)
    const subscriber = await subscribed(...target(gateway), '-t', 'a/#', '-q', '1')
    const client = await mqttjs(gateway)
    await client.subscribeAsync('a/#', { qos: 2 })
    const metrics = await (await fetch(`${gateway.urls.http}/metrics`)).text()
    expect(metrics).toContain('mqway_connections{transport="tls",state="open"} 2')

    const arrived = nextMessage(client)
    const publisher = program('mosquitto_pub', ...target(gateway), '-t', 'a/b', '-m', 'hello', '-q', '2')
    expect([await publisher.exited(), publisher.errors()]).toEqual([0, ''])
    expect(String((await arrived).payload)).toBe('hello')
    let line = ''
    while (!line.startsWith('a/b')) line = await subscriber.line()
    expect(line).toBe('a/b hello')

    const plain = await mqtt.connectAsync(gateway.urls.mqtt, { reconnectPeriod: 0 })
    closers.push(() => plain.end(true))
    const large = 'x'.repeat(1_000_000)
    const again = nextMessage(client)
    await plain.publishAsync('a/c', large)
    expect(String((await again).payload) === large).toBe(true)

    const five = await mqttjs(gateway, { protocolVersion: 5 })
    await five.subscribeAsync('five')
    const received = new Promise<IPublishPacket>(resolve =>
      five.once('message', (_topic, _payload, packet) => resolve(packet)),
    )
    await five.publishAsync('five', 'x', { qos: 1, properties: { userProperties: { unit: '°C' } } })
    expect({ ...(await received).properties?.userProperties }).toEqual({ unit: '°C' })
  })

  it('leads to another broker as the plain port does, with the client’s address in the PROXY protocol', async () => {
    const mosquitto = await startMosquitto()
    closers.push(() => mosquitto.stop())
    const gateway = await start({ broker: `mqtt://127.0.0.1:${mosquitto.port}` })
    const subscriber = await subscribed(...target(gateway), '-V', '5', '-t', 'a')
    const client = await mqttjs(gateway, { protocolVersion: 5 })
    await client.publishAsync('a', 'five', { qos: 1, properties: { userProperties: { k: 'v' } } })
    let line = ''
    while (!line.startsWith('a ')) line = await subscriber.line()
    expect(line).toBe('a five')

    const first = new Promise<Buffer>(resolve => {
      const broker = createServer(socket => {
        socket.on('error', () => {})
        socket.once('data', bytes => {
          resolve(bytes)
          socket.destroy()
        })
      }).listen(0, '127.0.0.1', async () => {
        const { port } = broker.address() as AddressInfo
        const tunnel = await start({ broker: { url: `mqtt://127.0.0.1:${port}`, proxyProtocol: 'v1' }, push: 'off' })
        const raw = connectTls({ port: tunnel.mqttsPort, host: '127.0.0.1', ca: readFileSync(ca.ca) })
        raw.on('error', () => {})
        closers.push(
          () => raw.destroy(),
          () => broker.close(),
        )
        expected = () => `PROXY TCP4 127.0.0.1 127.0.0.1 ${raw.localPort} ${tunnel.mqttsPort}\r\n`
        raw.write(connect)
      })
    })
    let expected = (): string => ''
    const bytes = await first
    expect(bytes.toString('latin1')).toContain(expected())
  })

  it('knows users by their certificates, with their rules; a password in CONNECT precedes it', async () => {
    const people = await People.start()
    closers.push(() => people.stop())
    const gateway = await start({
      access: { ...people.access, rules: [{ to: 'authenticated', publish: ['own/%u'], subscribe: ['own/%u'] }] },
    })
    const certificate = (name: string): string[] => [
      '--cert',
      people.file(`${name}.pem`),
      '--key',
      people.file(`${name}.key`),
    ]
    const client = await mqttjs(gateway, { ...people.certificate('alice') })
    await client.subscribeAsync('own/alice')
    await expect(client.subscribeAsync('own/bob')).rejects.toThrow('Unspecified error')
    const arrived = nextMessage(client)
    const message = ['-t', 'own/alice', '-m', 'x', '-q', '1']
    const publisher = program('mosquitto_pub', ...target(gateway), ...certificate('alice'), ...message)
    expect([await publisher.exited(), publisher.errors()]).toEqual([0, ''])
    expect(String((await arrived).payload)).toBe('x')

    for (const name of ['revoked', 'foreign']) {
      const refused = program('mosquitto_pub', ...target(gateway), ...certificate(name), ...message)
      expect([name, await refused.exited()]).not.toEqual([name, 0])
    }
    const nobody = program('mosquitto_pub', ...target(gateway), ...message)
    expect(await nobody.exited()).toBe(4)
    const carol = await mqttjs(gateway, { ...people.certificate('alice'), username: 'carol', password: 'hook' })
    await carol.subscribeAsync('own/carol')
    await expect(carol.subscribeAsync('own/alice')).rejects.toThrow('Unspecified error')

    // No session is resumed, which would keep the verdict on its certificate.
    const visit = async (session?: Buffer): Promise<{ resumed: boolean; session: Buffer | undefined }> => {
      const sessions: Buffer[] = []
      const own = {
        port: gateway.mqttsPort,
        host: '127.0.0.1',
        ca: readFileSync(ca.ca),
        ...people.certificate('alice'),
      }
      const socket = connectTls({ ...own, ...(session && { session }) })
      onTestFinished(() => void socket.destroy())
      socket.on('session', given => sessions.push(given)).write(connect)
      await new Promise<void>((resolve, reject) => socket.once('data', () => resolve()).once('error', reject))
      return { resumed: socket.isSessionReused(), session: sessions[0] }
    }
    expect((await visit((await visit()).session)).resumed).toBe(false)

    // A revocation applies to new connections.
    people.revoke('alice')
    await gateway.gateway.reload()
    await expect(mqttjs(gateway, { ...people.certificate('alice') })).rejects.toThrow()
    await client.publishAsync('own/alice', 'still there', { qos: 1 })
  })

  it('has the certificate of the requested server name', async () => {
    const other = ca.sign('other', 'DNS:other.test')
    const gateway = await start({ https: { ...other, certificates: [{ hosts: ['localhost'], ...own }] } })
    // mosquitto_pub verifies the name that it sends.
    const publisher = program('mosquitto_pub', ...target(gateway), '-t', 'a', '-m', 'b', '-q', '1')
    expect([await publisher.exited(), publisher.errors()]).toEqual([0, ''])
    await mqttjs(gateway, { servername: 'other.test' })
    expect((await shown(gateway, 'localhost')).subjectaltname).toContain('localhost')
    expect((await shown(gateway, 'other.test')).subjectaltname).toContain('other.test')
  })

  it('has a replaced certificate for new connections, and open ones stay', async () => {
    const gateway = await start()
    const client = await mqttjs(gateway)
    await client.subscribeAsync('a')
    const before = await shown(gateway, 'localhost')
    const next = ca.sign('next', 'DNS:localhost,IP:127.0.0.1')
    copyFileSync(next.key, own.key)
    copyFileSync(next.cert, own.cert)
    await gateway.gateway.reload()
    const after = await shown(gateway, 'localhost')
    expect(after.fingerprint256).not.toBe(before.fingerprint256)
    const arrived = nextMessage(client)
    await client.publishAsync('a', 'still there', { qos: 1 })
    expect(String((await arrived).payload)).toBe('still there')
    await mqttjs(gateway)
  })

  it('does not start without its certificate, and says which file is missing', async () => {
    const missing = { cert: join(ca.directory, 'none.pem'), key: own.key }
    await expect(startTestGateway({ https: { port: 'off', ...missing }, mqtts: { port: 0 } })).rejects.toThrow(
      /none\.pem/,
    )
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('resumes sessions, with %s', async maxVersion => {
    const gateway = await start({ https: { port: 'off', ...own } })
    const visit = async (session?: Buffer) => {
      const sessions: Buffer[] = []
      const socket = connectTls({
        ...{ port: gateway.mqttsPort, host: '127.0.0.1', ca: readFileSync(ca.ca), maxVersion },
        ...(session && { session }),
      })
      onTestFinished(() => void socket.destroy())
      socket.on('session', given => sessions.push(given))
      // CONNECT, answered by CONNACK: tickets of TLS 1.3 come after the handshake.
      socket.write(connect)
      await new Promise<void>((resolve, reject) => socket.once('data', () => resolve()).once('error', reject))
      return { resumed: socket.isSessionReused(), session: sessions[0] }
    }
    const { resumed, session } = await visit()
    expect([resumed, session !== undefined]).toEqual([false, true])
    expect((await visit(session)).resumed).toBe(true)
  })

  it('refuses a client whose certificate authority is another to the client, and goes on', async () => {
    const gateway = await start()
    const others = makeCertificates()
    closers.push(() => rmSync(others.directory, { recursive: true }))
    const args = ['-h', 'localhost', '-p', String(gateway.mqttsPort), '--cafile', others.ca, '-t', 'a', '-m', 'b']
    expect(await program('mosquitto_pub', ...args).exited()).not.toBe(0)
    expect(await program('mosquitto_pub', ...target(gateway), '-t', 'a', '-m', 'b').exited()).toBe(0)
  })
})
