import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import type { ConfigInput } from '../src/config/schema.js'
import { startTestGateway, type TestGateway } from './helpers/gateway.js'
import { eventually } from './helpers/wait.js'

/*
 * The recipe of docs/home-assistant.md, with a client that behaves as Home Assistant's MQTT integration does: it reads discovery messages,
 * subscribes to the topics that they name, announces itself on `homeassistant/status`, and leaves without DISCONNECT.
 */

const text = readFileSync(new URL('../docs/home-assistant.md', import.meta.url), 'utf8')
const [, yaml = ''] = /```yaml\n(# mqway\.yaml[\s\S]*?)```/.exec(text) ?? []
const [, json = ''] = /```json\n([\s\S]*?)```/.exec(text) ?? []
const [, discoveryTopic = ''] = /The discovery message of a switch, for `([^`]+)`/.exec(text) ?? []
const discovery: Entity = JSON.parse(json)

/** What the test's Home Assistant knows of a discovery message. */
interface Entity {
  readonly unique_id: string
  readonly state_topic: string
  readonly command_topic?: string
  readonly availability_topic: string
}

type Port = 'mqtt' | 'mqtts' | 'wss'
type Version = 4 | 5
const versions: readonly Version[] = [4, 5]

let directory: string
const closers: (() => unknown)[] = []
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-home-'))
  const users = ['homeassistant', 'pump7', 'lamp']
  // The lowest cost, instead of the usual 60 ms.
  await writeFile(join(directory, 'users'), users.map(user => `${user}:${bcrypt.hashSync(user, 4)}\n`).join(''))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  await rm(directory, { recursive: true })
})

async function startRecipe(own: ConfigInput = {}): Promise<TestGateway> {
  const { host, https, http, mqtt: plain, mqtts, access, ...recipe } = parse(yaml)
  expect([host, https.port, http.port, plain.host, mqtts.port]).toEqual(['0.0.0.0', 443, 'off', '127.0.0.1', 8883])
  const gateway = await startTestGateway({
    ...recipe,
    mqtts: { port: 0 },
    ...own,
    access: { ...access, htpasswd: join(directory, 'users') },
  })
  closers.push(() => gateway.close())
  return gateway
}

async function connect(
  { urls }: TestGateway,
  user: string,
  options: IClientOptions & { readonly port?: never },
  port: Port = 'mqtt',
): Promise<MqttClient> {
  const { mqtt: plain, mqtts, https } = urls
  const url = { mqtt: plain, mqtts, wss: `${https.replace('https', 'wss')}/mqtt` }[port]
  const credentials = { username: user, password: user, rejectUnauthorized: false, reconnectPeriod: 0 }
  const client = await mqtt.connectAsync(url, { ...credentials, ...options }, false)
  client.on('error', () => {})
  closers.push(() => client.end(true))
  return client
}

/** The integration: `entities` by unique id, `states` by topic. */
class HomeAssistant {
  readonly entities = new Map<string, Entity>()
  readonly states = new Map<string, string>()
  /** Topics of messages that came retained. */
  readonly retained = new Set<string>()
  /** Subscriptions that were refused. */
  readonly refusals: string[] = []
  readonly #byTopic = new Map<string, string>()
  readonly #client: MqttClient
  readonly #pending: string[] = []
  #subscribing: Promise<unknown> = Promise.resolve()

  private constructor(client: MqttClient) {
    this.#client = client
  }

  static async start(gateway: TestGateway, protocolVersion: Version, port: Port): Promise<HomeAssistant> {
    const will = { topic: 'homeassistant/status', payload: Buffer.from('offline'), qos: 0 as const, retain: false }
    const clientId = randomBytes(11).toString('hex')
    const options = { protocolVersion, clientId, clean: true, keepalive: 60, will }
    const own = new HomeAssistant(await connect(gateway, 'homeassistant', options, port))
    own.#client.on('message', (topic, payload, { retain }) => own.#received(topic, String(payload), retain))
    await own.#subscribe(['homeassistant/+/+/config', 'homeassistant/+/+/+/config', 'tasmota/discovery/#'])
    await own.#client.publishAsync('homeassistant/status', 'online', { qos: 0, retain: false })
    return own
  }

  /** Sends a command of the entity. */
  async command(id: string, payload: string): Promise<void> {
    await this.#client.publishAsync(this.entities.get(id)?.command_topic ?? '', payload, { qos: 0 })
  }

  /** Whether the entity is available. */
  isAvailable(id: string): boolean {
    return this.states.get(this.entities.get(id)?.availability_topic ?? '') === 'online'
  }

  stateOf(id: string): string | undefined {
    return this.states.get(this.entities.get(id)?.state_topic ?? '')
  }

  /** Ends the connection without DISCONNECT. */
  stop(): void {
    this.#client.stream.destroy()
  }

  #received(topic: string, payload: string, retain: boolean): void {
    if (retain) this.retained.add(topic)
    if (!/^homeassistant\/.*\/config$/.test(topic)) {
      this.states.set(topic, payload)
      return
    }
    if (payload === '') {
      this.entities.delete(this.#byTopic.get(topic) ?? '')
      return
    }
    const entity: Entity = JSON.parse(payload)
    this.#byTopic.set(topic, entity.unique_id)
    this.entities.set(entity.unique_id, entity)
    this.#pending.push(entity.state_topic, entity.availability_topic)
    this.#subscribing = this.#subscribing.then(() => this.#subscribe(this.#pending.splice(0)))
  }

  /** Up to 500 filters in one packet. */
  async #subscribe(filters: readonly string[]): Promise<void> {
    for (let from = 0; from < filters.length; from += 500) {
      await this.#client.subscribeAsync(filters.slice(from, from + 500), { qos: 0 }).catch(error => {
        if (!this.#client.disconnecting) this.refusals.push(String(error))
      })
    }
  }
}

/** A device: announces a switch, and does what it is told. */
async function startDevice(
  gateway: TestGateway,
  protocolVersion: Version,
): Promise<{ client: MqttClient; heard: string[] }> {
  const { state_topic: state, command_topic: command = '', availability_topic: availability } = discovery
  const will = { topic: availability, payload: Buffer.from('offline'), qos: 1 as const, retain: true }
  const client = await connect(gateway, 'pump7', { protocolVersion, clientId: 'pump7', will }, 'mqtts')
  const heard: string[] = []
  client.on('message', (topic, payload) => {
    heard.push(`${topic} ${payload}`)
    if (topic === command) client.publish(state, payload, { qos: 1, retain: true })
  })
  await client.subscribeAsync(['homeassistant/status', command], { qos: 1 })
  const retained = { qos: 1, retain: true } as const
  await client.publishAsync(discoveryTopic, json, retained)
  await client.publishAsync(availability, 'online', retained)
  await client.publishAsync(state, 'OFF', retained)
  return { client, heard }
}

describe.each(versions)('the recipe for Home Assistant with MQTT version %i', version => {
  it.each(['mqtt', 'mqtts', 'wss'] as const)(
    'over %s: it finds a device, controls it, and each notices when the other goes',
    async port => {
      const gateway = await startRecipe()
      const { client, heard } = await startDevice(gateway, version)
      const home = await HomeAssistant.start(gateway, version, port)
      await eventually(() => home.isAvailable('pump7_pump') && home.stateOf('pump7_pump') === 'OFF')
      expect([...home.retained].sort()).toEqual(
        [discovery.availability_topic, discovery.state_topic, discoveryTopic].sort(),
      )
      await eventually(() => heard.includes('homeassistant/status online'))

      await home.command('pump7_pump', 'ON')
      await eventually(() => home.stateOf('pump7_pump') === 'ON')
      expect(heard).toContain('devices/pump7/pump/set ON')

      client.stream.destroy()
      await eventually(() => !home.isAvailable('pump7_pump'))
      const again = await startDevice(gateway, version)
      await eventually(() => home.isAvailable('pump7_pump'))

      expect(home.refusals).toEqual([])
      home.stop()
      await eventually(() => again.heard.includes('homeassistant/status offline'))
    },
  )

  it('finds everything again after a restart of mqway, until the device removes it', async () => {
    const data = join(directory, 'data')
    const first = await startRecipe({ data })
    const { client } = await startDevice(first, version)
    await client.endAsync()
    await first.close()
    closers.splice(0)

    const second = await startRecipe({ data })
    const home = await HomeAssistant.start(second, version, 'mqtts')
    await eventually(() => home.isAvailable('pump7_pump') && home.stateOf('pump7_pump') === 'OFF')
    const remover = await connect(second, 'pump7', { protocolVersion: version })
    await remover.publishAsync(discoveryTopic, '', { qos: 1, retain: true })
    await eventually(() => home.entities.size === 0)
    const later = await HomeAssistant.start(second, version, 'mqtts')
    await remover.publishAsync('homeassistant/switch/pump7/other/config', json, { qos: 1 })
    await eventually(() => later.entities.size > 0)
    expect(later.retained.has(discoveryTopic)).toBe(false)
  })

  it('keeps devices out of each other’s topics', async () => {
    const gateway = await startRecipe()
    const home = await HomeAssistant.start(gateway, version, 'mqtt')
    const lamp = await connect(gateway, 'lamp', { protocolVersion: version })
    for (const filter of ['#', 'homeassistant/#', 'devices/#', 'devices/pump7/#', 'homeassistant/+/pump7/config']) {
      await expect(lamp.subscribeAsync(filter), filter).rejects.toThrow(/Subscribe error/)
    }
    for (const topic of [
      discoveryTopic,
      'homeassistant/device/pump7/config',
      'homeassistant/status',
      'devices/pump7/status',
    ]) {
      await lamp.publishAsync(topic, json, { qos: 1, retain: true }).catch(() => {})
    }
    await lamp.publishAsync('homeassistant/switch/lamp/config', json.replaceAll('pump7', 'lamp'), { qos: 1 })
    await eventually(() => home.entities.has('lamp_pump'))
    expect([...home.entities.keys()]).toEqual(['lamp_pump'])
    expect(home.states.size).toBe(0)
    await expect(connect(gateway, 'lamp', { protocolVersion: version, password: 'wrong' })).rejects.toThrow()
  })

  it('has room for the topics of thousands of entities', async () => {
    const gateway = await startRecipe()
    const device = await connect(gateway, 'pump7', { protocolVersion: version })
    const count = 3000
    await Promise.all(
      Array.from({ length: count }, (_, index) => {
        const entity = {
          unique_id: `pump7_${index}`,
          state_topic: `devices/pump7/${index}`,
          availability_topic: `devices/pump7/${index}/status`,
        }
        return device.publishAsync(`homeassistant/sensor/pump7/${index}/config`, JSON.stringify(entity), {
          qos: 1,
          retain: true,
        })
      }),
    )
    const home = await HomeAssistant.start(gateway, version, 'mqtts')
    await eventually(() => home.entities.size === count)
    const last = `pump7_${count - 1}`
    await eventually(async () => {
      await device.publishAsync(`devices/pump7/${count - 1}`, '21', { qos: 1 })
      return home.stateOf(last) === '21' || home.refusals.length > 0
    })
    expect(home.refusals).toEqual([])
  })
})
