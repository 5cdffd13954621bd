import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import { SignJWT } from 'jose'
import { connectAsync, type IClientOptions, type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { eventually } from '../helpers/wait.js'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

interface Place {
  readonly gateway: TestGateway
  readonly client: (options?: IClientOptions) => Promise<MqttClient>
}

async function startGateway(config: ConfigInput = {}): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  cleanups.push(() => gateway.close())
  return gateway
}

async function connectTo(port: number, options: IClientOptions = {}): Promise<MqttClient> {
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0, ...options })
  cleanups.push(() => client.endAsync(true))
  return client
}

async function onEmbedded(config: ConfigInput = {}): Promise<Place> {
  const gateway = await startGateway(config)
  return { gateway, client: options => connectTo(gateway.mqttPort, { protocolVersion: 4, ...options }) }
}

async function onMosquitto(): Promise<Place> {
  const mosquitto = await startMosquitto()
  cleanups.push(() => mosquitto.stop())
  const gateway = await startGateway({ broker: `mqtt://127.0.0.1:${mosquitto.port}`, push: { topics: ['#'] } })
  await eventually(async () => (await fetch(`${gateway.urls.http}/readyz`)).ok)
  return { gateway, client: options => connectTo(mosquitto.port, options) }
}

const ask = (gateway: TestGateway, query: string, body = 'question', init: RequestInit = {}) =>
  fetch(`${gateway.urls.http}/v1/request?${query}`, { method: 'POST', body, ...init })

/** Answers what arrives on `topic`, over HTTP, as a page or a back end does. */
async function answerOverHttp({ urls }: TestGateway, topic: string, headers = {}): Promise<void> {
  const poll = await fetch(`${urls.http}/v1/poll?topic=${topic}&last=1&timeout=10`, { headers })
  const { events } = (await poll.json()) as { events: Record<string, string>[] }
  const { payload, responseTopic = '', correlationData } = events[0] ?? {}
  const answer = {
    topic: responseTopic,
    payload: `answer to ${payload}`,
    correlationData,
    contentType: 'text/x-answer',
  }
  const { status } = await fetch(`${urls.http}/v1/publish`, { method: 'POST', body: JSON.stringify(answer), headers })
  expect(status).toBe(201)
}

describe('POST /v1/request', () => {
  it('is answered over HTTP at the built-in broker', async () => {
    const { gateway } = await onEmbedded()
    const answered = answerOverHttp(gateway, 'device')
    const response = await ask(gateway, 'topic=device')
    await answered
    expect([response.status, await response.text()]).toEqual([200, 'answer to question'])
    expect(response.headers.get('content-type')).toBe('text/x-answer')
    expect(response.headers.get('content-security-policy')).toContain('sandbox')
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
  })

  it.each([0, 1, 2] as const)('is answered by a client of MQTT 5 at the built-in broker with QoS %i', async qos => {
    const { gateway, client } = await onEmbedded()
    const device = await client({ protocolVersion: 5 })
    await device.subscribeAsync('device/+', { qos })
    const seen: unknown[] = []
    device.on('message', (_topic, payload, { properties }) => {
      seen.push(properties)
      const { responseTopic = '', correlationData = Buffer.alloc(0), userProperties } = properties ?? {}
      const answer = { correlationData, contentType: 'application/json', ...(userProperties && { userProperties }) }
      device.publish(responseTopic, `{"got":"${payload}"}`, { qos, retain: true, properties: answer })
    })
    const names = Array.from({ length: 30 }, (_, index) => String(index))
    const responses = await Promise.all(
      names.map(async name => (await ask(gateway, `topic=device/${name}&qos=${qos}`, name)).json()),
    )
    expect(responses).toEqual(names.map(got => ({ got })))
    const more = 'enveloped=true&userProperties=a%3D1&contentType=x/y'
    const enveloped = await ask(gateway, `topic=device/0&qos=${qos}&${more}`, 'd')
    expect(await enveloped.json()).toMatchObject({
      payload: '{"got":"d"}',
      contentType: 'application/json',
      userProperties: [['a', '1']],
    })
    expect(seen.at(-1)).toMatchObject({ contentType: 'x/y', messageExpiryInterval: expect.any(Number) })
    const metrics = await (await fetch(`${gateway.urls.http}/metrics`)).text()
    expect(metrics).toMatch(/^mqway_retained_messages 0$/m)
  })

  it('is answered by a client of MQTT 5 at another broker, whose responses nobody else gets', async () => {
    const { gateway, client } = await onMosquitto()
    const device = await client({ protocolVersion: 5 })
    const listener = await client({ protocolVersion: 5 })
    const heard: string[] = []
    listener.on('message', topic => heard.push(topic))
    await listener.subscribeAsync('#')
    await device.subscribeAsync('device/+')
    device.on('message', (_topic, payload, { properties }) => {
      const { responseTopic = '', correlationData = Buffer.alloc(0) } = properties ?? {}
      const userProperties = { status: 'done' }
      const sent = { qos: 1, properties: { correlationData, contentType: 'application/json', userProperties } } as const
      device.publish(responseTopic, `{"got":"${payload}"}`, sent)
    })
    // More than mosquitto sends without an acknowledgement.
    const names = Array.from({ length: 30 }, (_, index) => String(index))
    const responses = await Promise.all(
      names.map(async name => (await ask(gateway, `topic=device/${name}`, name)).json()),
    )
    expect(responses).toEqual(names.map(got => ({ got })))
    const enveloped = await ask(gateway, 'topic=device/0&enveloped=true&qos=0', 'd')
    expect(await enveloped.json()).toMatchObject({
      payload: '{"got":"d"}',
      contentType: 'application/json',
      userProperties: [['status', 'done']],
    })
    await fetch(`${gateway.urls.http}/v1/publish?topic=last`, { method: 'POST' })
    await eventually(() => heard.includes('last'))
    expect(new Set(heard)).toEqual(new Set([...names.map(name => `device/${name}`), 'last']))
    const poll = await fetch(`${gateway.urls.http}/v1/poll?topic=%23&last=100&timeout=0`)
    const { events } = (await poll.json()) as { events: { topic: string }[] }
    expect(new Set(events.map(({ topic }) => topic))).toEqual(new Set(heard))
  })

  it.each([
    ['the built-in broker', onEmbedded],
    ['mosquitto', onMosquitto],
  ] as const)('is answered by a client of MQTT 3.1.1 on its topic for replies at %s', async (_, start) => {
    const { gateway, client } = await start()
    const device = await client({ protocolVersion: 4 })
    await device.subscribeAsync('cmnd/lamp/POWER')
    device.on('message', (_topic, payload) => void device.publish('stat/lamp/RESULT', `{"POWER":"${payload}"}`))
    const body = JSON.stringify({ topic: 'cmnd/lamp/POWER', payload: 'ON', replyTopic: 'stat/lamp/RESULT' })
    const init = { headers: { 'content-type': 'application/json' } }
    const response = await ask(gateway, '', body, init)
    expect([response.status, await response.text()]).toEqual([200, '{"POWER":"ON"}'])
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8')
  })

  it('is 504 where nobody answers in time', async () => {
    const { gateway } = await onEmbedded()
    const response = await ask(gateway, 'topic=nobody&timeout=100ms')
    expect(response.status).toBe(504)
    expect(await response.json()).toMatchObject({ reason: 'response-timeout', status: 504 })
    const metrics = await (await fetch(`${gateway.urls.http}/metrics`)).text()
    expect(metrics).toContain('mqway_requests_total{outcome="timeout"} 1')
    expect(metrics).toContain('mqway_requests_pending 0')
  })

  it('waits no more where its client has left', async () => {
    const { gateway } = await onEmbedded()
    const { port, hostname } = new URL(gateway.urls.http)
    const socket = connectTcp(Number(port), hostname)
    await once(socket, 'connect')
    socket.write('POST /v1/request?topic=nobody&timeout=1m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx')
    const metric = async (line: string): Promise<boolean> =>
      (await (await fetch(`${gateway.urls.http}/metrics`)).text()).includes(line)
    await eventually(() => metric('mqway_requests_pending 1'))
    socket.destroy()
    await eventually(() => metric('mqway_requests_total{outcome="abandoned"} 1'))
    expect(await metric('mqway_requests_pending 0')).toBe(true)
  })

  it('ends with the gateway', async () => {
    const { gateway } = await onEmbedded()
    const response = ask(gateway, 'topic=nobody&timeout=1m')
    await eventually(async () =>
      (await (await fetch(`${gateway.urls.http}/metrics`)).text()).includes('mqway_requests_pending 1'),
    )
    await gateway.close()
    expect((await response).status).toBe(503)
  })

  const secret = '0123456789abcdef0123456789abcdef'
  const access: ConfigInput = {
    access: {
      jwt: { secret },
      rules: [
        { to: { user: 'asker' }, publish: ['devices/#'], subscribe: ['replies/#'] },
        { to: { user: 'device' }, subscribe: ['devices/#'] },
        { to: { user: 'spy' }, publish: ['#', '$mqway/#'], subscribe: ['#', '$mqway/#'] },
      ],
    },
  }
  const tokenOf = (name: string): Promise<string> =>
    new SignJWT({ sub: name }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h').sign(Buffer.from(secret))
  const headersOf = async (name: string) => ({ authorization: `Bearer ${await tokenOf(name)}` })

  it('needs the right to publish, and to subscribe to the topic for replies; its answer needs neither', async () => {
    const { gateway } = await onEmbedded(access)
    const headers = await headersOf('asker')
    expect((await ask(gateway, 'topic=devices/1')).status).toBe(401)
    const refused = async (query: string) => {
      const response = await ask(gateway, query, '', { headers })
      return [response.status, ((await response.json()) as { parameter: string }).parameter]
    }
    expect(await refused('topic=others/1')).toEqual([403, 'topic'])
    expect(await refused('topic=devices/1&replyTopic=devices/2')).toEqual([403, 'replyTopic'])
    expect(await refused('topic=devices/1&replyTopic=devices/1')).toEqual([403, 'replyTopic'])
    const answered = answerOverHttp(gateway, 'devices/1', await headersOf('device'))
    expect((await ask(gateway, 'topic=devices/1', 'x', { headers })).status).toBe(200)
    await answered
  })

  it.each<[string, ConfigInput]>([
    ['with rules that allow it', access],
    ['without rules', {}],
  ])('has responses that nobody can subscribe to, %s', async (_, config) => {
    const { gateway, client } = await onEmbedded(config)
    const headers = config.access ? await headersOf('spy') : {}
    const topic = encodeURIComponent('$mqway/#')
    const poll = await fetch(`${gateway.urls.http}/v1/poll?topic=${topic}&timeout=0`, { headers })
    expect(poll.status).toBe(403)
    const spy = await client(config.access ? { username: 'spy', password: await tokenOf('spy') } : {})
    for (const filter of ['$mqway/#', '$mqway/response/+/+', '$share/g/$mqway/#']) {
      const granted = await spy.subscribeAsync(filter).catch(error => error.packet?.granted)
      expect(granted).toEqual([128])
    }
    await spy.subscribeAsync('#')
    const heard: string[] = []
    spy.on('message', (name, _payload, { retain }) => {
      if (!name.startsWith('presence/')) heard.push(`${name} ${retain}`)
    })
    await spy.publishAsync('$mqway/response/x/y', 'kept', { qos: 1, retain: true })
    await spy.publishAsync('seen', '', { qos: 1 })
    await eventually(() => heard.includes('seen false'))
    expect(heard.filter(name => !name.startsWith('presence/'))).toEqual(['seen false'])
    const metrics = await (await fetch(`${gateway.urls.http}/metrics`)).text()
    expect(metrics).toMatch(/^mqway_retained_messages 0$/m)
  })
})
