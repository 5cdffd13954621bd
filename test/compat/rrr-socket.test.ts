import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { startTestGateway } from '../helpers/gateway.js'
import { People } from '../helpers/people.js'
import { eventually, settled } from '../helpers/wait.js'
import { RrrClient, startRrrSocketRig } from './rrr-rig.js'

const root = 'httpserver/websocket/'

describe('a WebSocket of RRR’s', () => {
  it('has a topic with its name in it for what it says, and gets what others publish below its name, not its own', async () => {
    const rig = await startRrrSocketRig()
    const [one, two] = await Promise.all(['/rrr/chat', '/rrr/chat'].map(path => rig.connect(path).opened()))
    one?.send('hello')
    two?.send('I am two')
    await eventually(() => rig.published.length === 2)
    const topics = rig.published.map(({ topic }) => topic)
    for (const topic of topics) expect(topic).toMatch(/^httpserver\/websocket\/[\w-]{22}\/chat$/)
    expect(new Set(topics).size).toBe(2)
    const ofOne = rig.published.find(({ payload }) => payload.toString() === 'hello')?.topic ?? ''
    // The reference's script answers on the very topic; anybody may on another one.
    await rig.publish(ofOne, 'answer')
    await rig.publish(ofOne.replace('chat', 'else/where'), 'another')
    await rig.publish(`${root}nobody/chat`, 'lost')
    await eventually(() => one?.texts.length === 2)
    expect(one?.texts).toEqual(['answer', 'another'])
    expect(two?.texts).toEqual([])
    expect(one?.protocol).toBe('')
  })

  it('gets none of its own back, however many, between the answers of others', async () => {
    const rig = await startRrrSocketRig()
    const client = await rig.connect('/rrr/chat').opened()
    client.send('first')
    await eventually(() => rig.published.length === 1)
    const topic = rig.published[0]?.topic ?? ''
    const wanted: string[] = []
    for (let count = 0; count < 500; count++) {
      client.send(`mine ${count}`)
      if (count % 5 > 0) continue
      wanted.push(`theirs ${count}`)
      await rig.publish(topic, `theirs ${count}`)
    }
    await eventually(() => rig.published.length === 501 && client.texts.length >= wanted.length)
    await settled(() => client.texts.length)
    expect(client.texts).toEqual(wanted)
    expect(rig.published.slice(1).map(({ payload }) => payload.toString())).toEqual(
      Array.from({ length: 500 }, (_, count) => `mine ${count}`),
    )
  })

  it.each([
    { path: '/rrr/a', topic: 'a' },
    { path: '/rrr/a/b/c', topic: 'a/b/c' },
    { path: '/rrr/a%20b%2F%C3%A9?x=1', topic: 'a b/é' },
    { path: '/rrr//a', topic: '/a' },
    { path: '/rrr/a/', topic: 'a/' },
  ])('is of the topic $topic at $path', async ({ path, topic }) => {
    const rig = await startRrrSocketRig()
    const client = await rig.connect(path).opened()
    client.send('x')
    await eventually(() => rig.published.length === 1)
    expect(rig.published[0]?.topic.split('/').slice(3).join('/')).toBe(topic)
  })

  it.each([
    { what: 'no topic', path: '/rrr/', status: 400 },
    { what: 'no slash', path: '/rrr', status: 400 },
    { what: 'a query alone', path: '/rrr/?topic=a', status: 400 },
    { what: 'a wildcard', path: '/rrr/a/%23', status: 400 },
    { what: 'half an escape', path: '/rrr/%E0%A4%A', status: 400 },
    { what: 'U+0000', path: '/rrr/%00', status: 400 },
    { what: 'too many levels', path: `/rrr/${'a/'.repeat(40)}`, status: 400 },
    { what: 'a topic that no filter matches', path: '/rrr/other', status: 404 },
    { what: 'another prefix', path: '/rrrr/chat', status: 404 },
  ])('is refused with $status for $what', async ({ path, status }) => {
    const rig = await startRrrSocketRig({ websocketTopicFilters: ['chat/#', 'a/#'] })
    const client = rig.connect(path)
    await eventually(() => client.refusedWith !== undefined)
    expect(client.refusedWith).toBe(status)
  })

  it('is refused where it offers a subprotocol, as there is none', async () => {
    const rig = await startRrrSocketRig()
    const refused = new RrrClient(`ws://127.0.0.1:${rig.port}/rrr/chat`, { protocols: ['mqtt'] })
    await eventually(() => refused.refusedWith === 400)
  })

  it('may be under / as well', async () => {
    const rig = await startRrrSocketRig({ prefix: '/' })
    const client = await rig.connect('/chat/room').opened()
    client.send('x')
    await eventually(() => rig.published.length === 1)
    expect(rig.published[0]?.topic).toMatch(/\/chat\/room$/)
  })

  it('takes and gets text of any kind, up to 16 MiB', async () => {
    const rig = await startRrrSocketRig({}, { config: { limits: { bodySize: '4MiB' } } })
    const client = await rig.connect('/rrr/chat').opened()
    const texts = ['"\\\r\n\u0000', '\u{1f600}</script>', '', 'x'.repeat(16 * 1024 ** 2)]
    for (const text of texts) client.send(text)
    await eventually(() => rig.published.length === texts.length)
    expect(rig.published.map(({ payload }) => payload.toString()).every((text, at) => text === texts[at])).toBe(true)
    const topic = rig.published[0]?.topic ?? ''
    for (const text of texts) await rig.publish(topic, text)
    await eventually(() => client.texts.length === texts.length)
    expect(client.texts.every((text, at) => text === texts[at])).toBe(true)
    client.send('x'.repeat(16 * 1024 ** 2 + 1))
    await eventually(() => client.closedWith !== undefined)
    expect(client.closedWith?.code).toBe(1009)
  })

  it('is ended for a binary frame, and is not sent what is no text', async () => {
    const rig = await startRrrSocketRig()
    const client = await rig.connect('/rrr/chat').opened()
    client.send('x')
    await eventually(() => rig.published.length === 1)
    const topic = rig.published[0]?.topic ?? ''
    await rig.publish(topic, Buffer.from([0xff]))
    await rig.publish(topic, 'text')
    await eventually(() => client.texts.length === 1)
    expect(client.blobs).toEqual([])
    client.send(Buffer.from([1, 2]))
    await eventually(() => client.closedWith !== undefined)
    expect(client.closedWith).toEqual({ code: 1003, reason: 'Only text is taken here; this was a binary frame' })
  })

  it('takes binary frames where they are enabled, and gets bytes that are no text in them', async () => {
    const rig = await startRrrSocketRig({ binary: true })
    const client = await rig.connect('/rrr/chat').opened()
    client.send(Buffer.from([0xff, 0]))
    await eventually(() => rig.published.length === 1)
    expect(rig.published[0]?.payload).toEqual(Buffer.from([0xff, 0]))
    const topic = rig.published[0]?.topic ?? ''
    await rig.publish(topic, Buffer.from([0xfe]))
    await rig.publish(topic, 'text')
    await eventually(() => client.texts.length === 1)
    expect(client.blobs).toEqual([Buffer.from([0xfe])])
  })

  it('is pinged when it is silent, and ended when it does not answer the time after', async () => {
    const rig = await startRrrSocketRig({}, { socket: { pingInterval: 100 } })
    const deaf = await rig.connect('/rrr/deaf', { autoPong: false }).opened()
    const alive = await rig.connect('/rrr/alive').opened()
    let pings = 0
    alive.on('ping', () => pings++)
    await eventually(() => deaf.closedWith !== undefined)
    expect(deaf.closedWith?.code).toBe(1011)
    await eventually(() => pings >= 3)
    expect(alive.closedWith).toBeUndefined()
    expect(rig.attendances.map(({ left }) => left)).toEqual([true, false])
  })

  it('is ended when what it said could not be published, so that it is not lost without a word', async () => {
    const publish = async (): Promise<never> => {
      throw new GatewayError('broker-away')
    }
    const receipts = { connected: false, publish }
    const rig = await startRrrSocketRig({}, { parts: { publisher: receipts } })
    const client = await rig.connect('/rrr/chat').opened()
    client.send('hello')
    await eventually(() => client.closedWith !== undefined)
    expect(client.closedWith).toEqual({ code: 1013, reason: 'The MQTT broker is temporarily unavailable' })
  })

  it('is read more slowly where it says more than it may', async () => {
    const rig = await startRrrSocketRig({}, { socket: { publishes: { perSecond: 20, burst: 2 } } })
    const client = await rig.connect('/rrr/chat').opened()
    const began = performance.now()
    for (let count = 0; count < 6; count++) client.send(String(count))
    await eventually(() => rig.published.length === 6)
    expect(performance.now() - began).toBeGreaterThan(150)
    expect(rig.published.map(({ payload }) => payload.toString())).toEqual(['0', '1', '2', '3', '4', '5'])
  })

  it('is told when the gateway shuts down, and leaves nothing behind', async () => {
    const rig = await startRrrSocketRig()
    const client = await rig.connect('/rrr/chat').opened()
    expect(rig.route.size).toBe(1)
    await rig.route.close(1000)
    await eventually(() => client.closedWith !== undefined)
    expect(client.closedWith?.code).toBe(1001)
    expect([rig.route.size, rig.hub.counters.subscribers, rig.options.connections.size]).toEqual([0, 0, 0])
    const late = rig.connect('/rrr/chat')
    await eventually(() => late.refusedWith === 503)
  })
})

describe('RRR on a whole gateway', () => {
  it('has MQTT clients answer one browser, by the rules; the endpoints of mqway go before its own', async () => {
    const gateway = await startTestGateway({ compat: { rrr: { prefix: '/', wait: '100ms' } }, https: { port: 'off' } })
    onTestFinished(() => gateway.close())
    const responder = await mqtt.connectAsync(gateway.urls.mqtt)
    onTestFinished(() => responder.endAsync(true))
    // On the same topic, as the reference has it.
    responder.on('message', (topic, payload) => {
      if (!payload.toString().startsWith('re: ')) responder.publish(topic, `re: ${payload}`)
    })
    await responder.subscribeAsync(`${root}+/#`, { qos: 1 })
    const base = gateway.urls.http.replace('http', 'ws')
    const client = await new RrrClient(`${base}/some/topic`).opened()
    client.send('one')
    client.send('two')
    await eventually(() => client.texts.length === 2)
    expect(client.texts).toEqual(['re: one', 're: two'])
    const own = await new RrrClient(`${base}/v1/socket`).opened()
    await eventually(() => own.texts.length > 0)
    expect(own.texts[0]).toContain('"type":"welcome"')
    const tunnel = new RrrClient(`${base}/mqtt`, { protocols: ['mqtt'] })
    await tunnel.opened()
    expect(tunnel.protocol).toBe('mqtt')

    await responder.publishAsync('push/1', 'over HTTP', { qos: 1 })
    expect(await (await fetch(`${gateway.urls.http}/?handle=1`)).json()).toMatchObject({ content: 'over HTTP' })
    const page = await fetch(`${gateway.urls.http}/`)
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8'])
    expect((await fetch(`${gateway.urls.http}/healthz?handle=1`)).status).toBe(200)
    const poll = await fetch(`${gateway.urls.http}/v1/poll?handle=1&topic=x&timeout=0`)
    expect(await poll.json()).toMatchObject({ events: [] })
  })

  it('has connections use their own topics without a rule, and nobody else', async () => {
    const people = await People.start()
    onTestFinished(() => people.stop())
    const rules = [{ to: { user: 'backend' }, publish: [`${root}+/re`], subscribe: [`${root}+/#`] }]
    const gateway = await startTestGateway({ access: { ...people.access, rules } })
    onTestFinished(() => gateway.close())
    const connectAs = async (sub: string): Promise<mqtt.MqttClient> => {
      const password = await people.token({ sub })
      const client = await mqtt.connectAsync(gateway.urls.mqtt, { username: sub, password, reconnectPeriod: 0 })
      onTestFinished(() => client.endAsync(true))
      return client
    }
    const backend = await connectAs('backend')
    backend.on('message', (topic, payload) => {
      if (!topic.endsWith('/re')) backend.publish(topic.replace(/[^/]+$/, 're'), `re: ${payload}`, { qos: 1 })
    })
    await backend.subscribeAsync(`${root}+/#`, { qos: 1 })
    const stranger = await connectAs('alice')
    await expect(stranger.subscribeAsync(`${root}#`)).rejects.toThrow()

    const url = `${gateway.urls.http.replace('http', 'ws')}/rrr/chat`
    const nobody = new RrrClient(url)
    await eventually(() => nobody.refusedWith === 401)
    const headers = { authorization: `Bearer ${await people.token()}` }
    const client = await new RrrClient(url, { headers }).opened()
    client.send('hello')
    await eventually(() => client.texts.length === 1)
    expect(client.texts).toEqual(['re: hello'])
    expect((await fetch(`${gateway.urls.http}/rrr/?handle=1`, { headers })).status).toBe(403)
  })

  it('carries 15 MiB in both directions through the built-in broker', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' } })
    onTestFinished(() => gateway.close())
    const backend = await mqtt.connectAsync(gateway.urls.mqtt)
    onTestFinished(() => backend.endAsync(true))
    backend.on('message', (topic, payload) => {
      if (!topic.endsWith('/re')) backend.publish(topic.replace(/[^/]+$/, 're'), payload, { qos: 1 })
    })
    await backend.subscribeAsync(`${root}+/#`, { qos: 1 })
    const client = await new RrrClient(`${gateway.urls.http.replace('http', 'ws')}/rrr/chat`).opened()
    const text = 'x\u00e9'.repeat(5 * 1024 ** 2)
    client.send(text)
    await eventually(() => client.texts.length === 1 || client.closedWith !== undefined)
    expect(client.texts[0] === text).toBe(true)
    client.send('small')
    await eventually(() => client.texts.length === 2)
  })

  it('takes many large messages in a row, none of which come back', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' }, embedded: { maxQueuedBytes: '64MiB' } })
    onTestFinished(() => gateway.close())
    const backend = await mqtt.connectAsync(gateway.urls.mqtt)
    onTestFinished(() => backend.endAsync(true))
    let heard = 0
    backend.on('message', (topic, payload) => {
      if (topic.endsWith('/re')) return
      heard++
      backend.publish(topic.replace(/[^/]+$/, 're'), String(payload.length), { qos: 1 })
    })
    await backend.subscribeAsync(`${root}+/#`, { qos: 1 })
    const client = await new RrrClient(`${gateway.urls.http.replace('http', 'ws')}/rrr/chat`).opened()
    const sizes = Array.from({ length: 20 }, (_, index) => 2 * 1024 ** 2 + index)
    for (const size of sizes) client.send('x'.repeat(size))
    await eventually(() => client.texts.length === sizes.length || client.closedWith !== undefined)
    expect(client.closedWith).toBeUndefined()
    expect([heard, client.texts]).toEqual([sizes.length, sizes.map(String)])
  })

  it('keeps what waits for a handle over a new start', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-rrr-'))
    onTestFinished(() => rm(data, { recursive: true, force: true }))
    const config = { data, https: { port: 'off' as const }, compat: { rrr: { wait: '100ms' } } }
    const before = await startTestGateway(config)
    for (const payload of ['one', 'two']) {
      const answer = await fetch(`${before.urls.http}/v1/publish?topic=push/1`, { method: 'POST', body: payload })
      expect(answer.status).toBe(201)
    }
    await before.close()
    const gateway = await startTestGateway(config)
    onTestFinished(() => gateway.close())
    for (const content of ['one', 'two', '']) {
      expect(await (await fetch(`${gateway.urls.http}/rrr/?handle=1`)).json()).toMatchObject({ content })
    }
  })
})
