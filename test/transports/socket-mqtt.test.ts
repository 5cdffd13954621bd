import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { eventually } from '../helpers/wait.js'
import { TestSocket } from './socket-rig.js'

let people: People
beforeAll(async () => {
  people = await People.start()
})
afterAll(() => people.stop())

async function start(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).status === 200)
  return gateway
}

async function connectMqtt(gateway: TestGateway, options: mqtt.IClientOptions = {}): Promise<mqtt.MqttClient> {
  const client = await mqtt.connectAsync(gateway.urls.mqtt, { reconnectPeriod: 0, ...options })
  onTestFinished(() => client.endAsync(true))
  return client
}

async function connectSocket(gateway: TestGateway, query = '', protocols: string[] = []): Promise<TestSocket> {
  const socket = new TestSocket(`${gateway.urls.http.replace('http', 'ws')}/v1/socket${query}`, protocols)
  await socket.next('live')
  return socket
}

describe('sockets and MQTT clients of a gateway', () => {
  it('talk to each other: one MQTT client answers one browser of many', async () => {
    const gateway = await start()
    const backend = await connectMqtt(gateway)
    backend.on('message', (topic, payload) => {
      backend.publish(topic.replace(/in$/, 'out'), `you said: ${payload}`, { qos: 1 })
    })
    await backend.subscribeAsync('socket/+/in', { qos: 1 })
    const sockets = await Promise.all(Array.from({ length: 5 }, () => connectSocket(gateway, '?topic=t/%23')))
    await Promise.all(
      sockets.map(async (socket, index) => {
        expect(await socket.ask({ type: 'send', payload: `hello ${index}` })).toMatchObject({ type: 'ok' })
        expect(await socket.next('event')).toMatchObject({
          topic: `socket/${socket.id}/out`,
          payload: `you said: hello ${index}`,
        })
      }),
    )
    for (const socket of sockets) expect(socket.events).toHaveLength(1)
  })

  it('share topics: what one publishes comes to the other, and filters come while both are there', async () => {
    const gateway = await start()
    const client = await connectMqtt(gateway)
    const got: string[] = []
    client.on('message', (topic, payload) => got.push(`${topic} ${payload}`))
    await client.subscribeAsync('t/#', { qos: 2 })
    await client.publishAsync('u/state', 'kept', { qos: 1, retain: true })
    const socket = await connectSocket(gateway)
    const { id } = await socket.ask({ type: 'publish', topic: 't/1', json: { a: 1 }, qos: 2, retain: true })
    await eventually(() => got.length === 1)
    expect(got).toEqual(['t/1 {"a":1}'])
    await socket.ask({ type: 'subscribe', topics: ['t/+', 'u/+'] })
    await socket.next('live')
    expect(socket.events).toHaveLength(2)
    expect(socket.events.find(event => event['topic'] === 't/1')).toMatchObject({ id, retained: true })
    await client.publishAsync('u/state', 'new', { qos: 1 })
    await eventually(() => socket.events.length === 3)
    expect(socket.payloads()[2]).toBe('new')
  })

  it('obey the same rules, and a browser needs a token', async () => {
    const rules = [{ to: { user: 'backend' }, publish: ['socket/+/out'], subscribe: ['socket/+/in'] }]
    const gateway = await start({ access: { ...people.access, rules } })
    const backend = await connectMqtt(gateway, {
      username: 'backend',
      password: await people.token({ sub: 'backend' }),
    })
    backend.on('message', topic => backend.publish(topic.replace(/in$/, 'out'), 'answer', { qos: 1 }))
    await backend.subscribeAsync('socket/+/in', { qos: 1 })
    const refused = new TestSocket(`${gateway.urls.http.replace('http', 'ws')}/v1/socket`)
    await eventually(() => refused.closed !== undefined)
    expect(refused.told).toEqual([])
    const socket = await connectSocket(gateway, '?device=not-alice', ['mqway', `bearer.${await people.token()}`])
    expect(socket.told[0]?.['device']).toBe('alice')
    await socket.ask({ type: 'send', payload: 'question' })
    expect(await socket.next('event')).toMatchObject({ payload: 'answer' })
    expect(await socket.ask({ type: 'subscribe', topics: ['socket/+/in'] })).toMatchObject({ status: 403 })
  })

  it('is told of the end of the gateway with the place to come back with', async () => {
    const gateway = await start()
    const socket = await connectSocket(gateway, '?topic=t')
    const { id } = await socket.ask({ type: 'publish', topic: 't', payload: 'last' })
    await socket.next('event')
    await gateway.close()
    await eventually(() => socket.closed !== undefined)
    expect(socket.told.at(-1)).toMatchObject({ type: 'end', reason: 'shutting-down', cursor: id })
    expect(socket.closed?.code).toBe(1001)
  })
})
