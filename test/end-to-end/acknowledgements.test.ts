import { connectAsync, type IClientOptions, type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

interface Report {
  readonly requested: { readonly missed?: readonly string[] }
  readonly receipts: readonly { readonly device: string; readonly status: string; readonly detail?: string }[]
}

const detail = 'acknowledged over MQTT'

async function start(): Promise<TestGateway> {
  const gateway = await startTestGateway({ https: { port: 'off' }, embedded: { maxAnonymousSessions: 10 } })
  cleanups.push(() => gateway.close())
  return gateway
}

async function connect({ mqttPort }: TestGateway, options: IClientOptions): Promise<MqttClient> {
  const client = await connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0, ...options })
  cleanups.push(() => client.endAsync(true))
  return client
}

/** Publishes a message with a request for receipts, and returns its id. */
async function publish({ urls }: TestGateway, from: string[], qos = 2, within = '1m'): Promise<string> {
  const body = JSON.stringify({ topic: 'jobs', payload: 'x', qos, receipt: { from, within } })
  const response = await fetch(`${urls.http}/v1/publish`, { method: 'POST', body })
  expect(response.status).toBe(201)
  return ((await response.json()) as { id: string }).id
}

async function reportOf({ urls }: TestGateway, id: string): Promise<Report> {
  return (await (await fetch(`${urls.http}/v1/receipts?id=${id}`)).json()) as Report
}

async function receiptsOf(gateway: TestGateway, id: string, count: number): Promise<Report['receipts']> {
  await eventually(async () => (await reportOf(gateway, id)).receipts.length >= count)
  return (await reportOf(gateway, id)).receipts
}

describe.each([4, 5] as const)('a client of MQTT with protocol version %i', protocolVersion => {
  it.each([1, 2] as const)('has received what it acknowledges with QoS %i', async qos => {
    const gateway = await start()
    const device = await connect(gateway, { protocolVersion, clientId: 'device' })
    const other = await connect(gateway, { protocolVersion, clientId: 'other' })
    await device.subscribeAsync('jobs', { qos })
    await other.subscribeAsync('jobs', { qos })
    for (let round = 0; round < 3; round++) {
      const id = await publish(gateway, ['device', 'absent'])
      expect(await receiptsOf(gateway, id, 1)).toMatchObject([{ device: 'device', status: 'received', detail }])
    }
  })

  it('has not received what it takes with QoS 0', async () => {
    const gateway = await start()
    const device = await connect(gateway, { protocolVersion, clientId: 'device' })
    await device.subscribeAsync('jobs', { qos: 0 })
    const arrived = new Promise(resolve => device.on('message', resolve))
    const id = await publish(gateway, ['device'], 1, '300ms')
    await arrived
    await eventually(async () => (await reportOf(gateway, id)).requested.missed !== undefined)
    expect(await reportOf(gateway, id)).toMatchObject({ requested: { missed: ['device'] }, receipts: [] })
  })

  it.each([1, 2] as const)('has received a message of QoS %i when it returns to its session', async qos => {
    const gateway = await start()
    const options = { protocolVersion, clientId: 'device', clean: false, properties: { sessionExpiryInterval: 600 } }
    const { properties, ...earlier } = options
    const own = protocolVersion === 5 ? options : earlier
    const device = await connect(gateway, own)
    await device.subscribeAsync('jobs', { qos })
    await device.endAsync()
    const id = await publish(gateway, ['device'])
    expect((await reportOf(gateway, id)).receipts).toEqual([])
    await connect(gateway, own)
    expect(await receiptsOf(gateway, id, 1)).toMatchObject([{ device: 'device', status: 'received', detail }])
  })
})

it('an acknowledgement with an error code is no receipt, and a receipt of the device counts more', async () => {
  const gateway = await start()
  const refusing = await connect(gateway, {
    protocolVersion: 5,
    clientId: 'refusing',
    customHandleAcks: (_topic, _message, _packet, done) => done(0x83),
  })
  const device = await connect(gateway, { protocolVersion: 5, clientId: 'device' })
  for (const client of [refusing, device]) await client.subscribeAsync('jobs', { qos: 1 })
  const id = await publish(gateway, ['refusing', 'device'], 1)
  await receiptsOf(gateway, id, 1)
  const body = JSON.stringify({ id, status: 'processed' })
  await fetch(`${gateway.urls.http}/v1/receipts?device=device`, { method: 'POST', body })
  expect((await reportOf(gateway, id)).receipts).toMatchObject([{ device: 'device', status: 'processed' }])
})
