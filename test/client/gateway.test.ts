import { describe, expect, it, onTestFinished } from 'vitest'
import type { Transport } from '../../src/client/api.js'
import { connect } from '../../src/client/mqway.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'
import { recorded } from './rig.js'

async function start(...[config]: Parameters<typeof startTestGateway>): Promise<TestGateway> {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  return gateway
}

async function publish(gateway: TestGateway, topic: string, payload: string, query = ''): Promise<string> {
  const url = `${gateway.urls.http}/v1/publish?topic=${encodeURIComponent(topic)}${query}`
  const answer = await fetch(url, { method: 'POST', body: payload })
  const text = await answer.text()
  expect(answer.status, text).toBe(201)
  return JSON.parse(text).id
}

describe.each<Transport>(['socket', 'sse', 'poll'])('over %s', transport => {
  const listen = (gateway: TestGateway, options: Parameters<typeof recorded>[0] = {}) =>
    recorded({ url: gateway.urls.http, topics: ['news/#'], transports: [transport], ...options })

  it('gets what is retained, and then what comes', async () => {
    const gateway = await start()
    await publish(gateway, 'news/state', 'kept', '&retain=true')
    const heard = listen(gateway)
    await heard.open(transport)
    await heard.until(() => heard.client.cursor !== undefined)
    for (const payload of ['one', 'zwei\r\n\u2028', '三']) await publish(gateway, 'news/eu', payload)
    await heard.until(() => heard.events.length === 4)
    expect(heard.payloads).toEqual(['kept', 'one', 'zwei\r\n\u2028', '三'])
    expect(heard.events.map(({ retained = false }) => retained)).toEqual([true, false, false, false])
    expect(heard.client.cursor).toBe(heard.events[3]?.id)
    expect(heard.states.map(({ phase }) => phase)).toEqual(['connecting', 'open'])
    heard.client.close()
    expect(heard.client.state).toEqual({ phase: 'closed' })
  })

  it('goes on from a cursor, and tells what is lost', async () => {
    const gateway = await start()
    const first = await publish(gateway, 'news/eu', 'one')
    for (const payload of ['two', 'three']) await publish(gateway, 'news/eu', payload)
    const heard = listen(gateway, { cursor: first })
    await heard.until(() => heard.events.length === 2)
    expect(heard.payloads).toEqual(['two', 'three'])
    expect(heard.gaps).toEqual([])
    const stale = listen(gateway, { cursor: `${'0'.repeat(15)}-7` })
    await stale.until(() => stale.gaps.length > 0)
    expect(stale.gaps).toEqual([{ reason: 'other-epoch', cursor: `${'0'.repeat(15)}-7`, resumes: expect.any(String) }])
  })

  it('gets the newest events that it asks for, and JSON as what it says', async () => {
    const gateway = await start()
    for (const payload of ['1', '2', '{"a":3}']) await publish(gateway, 'news/eu', payload)
    const heard = listen(gateway, { last: 2, json: true })
    await heard.until(() => heard.events.length === 2)
    expect(heard.events.map(({ json }) => json)).toEqual([2, { a: 3 }])
  })

  it('subscribes to more and to less while it goes on: states first, and nothing lost or twice', async () => {
    const gateway = await start()
    await publish(gateway, 'more/state', 'kept', '&retain=true')
    const heard = listen(gateway)
    await heard.until(() => heard.client.cursor !== undefined)
    await publish(gateway, 'news/eu', 'one')
    await heard.until(() => heard.events.length === 1)
    heard.client.subscribe('more/#', 'news/#')
    await publish(gateway, 'news/eu', 'two')
    await heard.until(() => heard.events.length === 3)
    expect(heard.payloads).toEqual(['one', 'kept', 'two'])
    await publish(gateway, 'more/eu', 'three')
    await heard.until(() => heard.events.length === 4)
    heard.client.unsubscribe('news/#')
    expect(heard.client.topics).toEqual(['more/#'])
    await publish(gateway, 'news/eu', 'nobody hears this')
    await publish(gateway, 'more/eu', 'four')
    await heard.until(() => heard.events.length === 5)
    expect(heard.payloads.slice(3)).toEqual(['three', 'four'])
  })

  it('publishes text and bytes', async () => {
    const gateway = await start()
    const heard = listen(gateway)
    await heard.until(() => heard.client.cursor !== undefined)
    const { id } = await heard.client.publish('news/eu', 'text', { retain: true })
    await heard.client.publish('news/eu', Uint8Array.of(0xff, 0))
    const properties = { contentType: 'text/csv', responseTopic: 'answers', correlationData: '/wA=' }
    await heard.client.publish('news/eu', 'with', { ...properties, userProperties: { a: ['1', '2'] }, expires: '1m' })
    await heard.until(() => heard.events.length === 3)
    expect(heard.events[0]).toMatchObject({ id, payload: 'text' })
    expect(heard.events[1]).toMatchObject({ payloadBase64: '/wA=' })
    const userProperties = [
      ['a', '1'],
      ['a', '2'],
    ]
    expect(heard.events[2]).toMatchObject({ ...properties, userProperties, expires: expect.stringContaining('T') })
    await expect(heard.client.publish('news/#', 'text')).rejects.toMatchObject({
      name: 'PushError',
      status: 400,
      parameter: expect.stringContaining('topic'),
    })
  })

  it('says what became of an event', async () => {
    const gateway = await start()
    const heard = listen(gateway, { device: 'kitchen' })
    await heard.open()
    const id = await publish(gateway, 'news/eu', 'one')
    await heard.until(() => heard.events.length === 1)
    expect(await heard.client.receipt(id, 'processed', 'shown')).toMatchObject({
      id,
      device: 'kitchen',
      status: 'processed',
    })
    const { receipts } = await (await fetch(`${gateway.urls.http}/v1/receipts?id=${id}`)).json()
    expect(receipts).toMatchObject([{ device: 'kitchen', status: 'processed', detail: 'shown' }])
    await expect(heard.client.receipt('nonsense', 'received')).rejects.toMatchObject({ status: 400 })
  })

  it('is given a name, and keeps it', async () => {
    const gateway = await start()
    const heard = listen(gateway)
    await heard.open()
    const { device } = heard.states.find(state => state.phase === 'open') ?? {}
    expect(device).toMatch(/^[\da-f-]{36}$/)
    heard.client.subscribe('more')
    await heard.until(() => heard.states.filter(({ phase }) => phase === 'open').length === 2)
    expect(heard.client.state).toMatchObject({ phase: 'open', device })
  })

  it('is closed with the reason where the gateway refuses', async () => {
    const gateway = await start()
    const heard = listen(gateway, { topics: ['news/#/wrong'], transports: [transport, 'sse'] })
    await heard.until(() => heard.client.state.phase === 'closed')
    expect(heard.client.state).toMatchObject({ error: { name: 'PushError', status: 400, parameter: 'topic' } })
  })
})

it('lets the gateway keep what somebody who iterates has not taken', async () => {
  const gateway = await start()
  const client = connect({ url: gateway.urls.http, topics: ['news/#'], transports: ['socket'] })
  onTestFinished(() => client.close())
  const iterator = client[Symbol.asyncIterator]()
  const first = iterator.next()
  await eventually(() => client.cursor !== undefined)
  const total = 3000
  for (let sent = 0; sent < total; sent += 1000) {
    const messages = Array.from({ length: 1000 }, (_, index) => ({ topic: 'news/eu', payload: String(sent + index) }))
    const headers = { 'content-type': 'application/json' }
    const init = { method: 'POST', headers, body: JSON.stringify({ messages }) }
    expect((await fetch(`${gateway.urls.http}/v1/publish`, init)).status).toBe(201)
  }
  // It has let go of its connection: nothing more can come.
  await eventually(() => client.state.phase === 'idle')
  const taken = [(await first).value.payload]
  while (taken.length < total) taken.push((await iterator.next()).value.payload)
  expect(taken).toEqual(Array.from({ length: total }, (_, index) => String(index)))
})

it('is not hurt by what goes wrong in a callback', async () => {
  const gateway = await start()
  const faults: unknown[] = []
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException').on('uncaughtException', fault => faults.push(fault))
  onTestFinished(() => {
    process.removeAllListeners('uncaughtException')
    for (const listener of listeners) process.on('uncaughtException', listener)
  })
  const payloads: unknown[] = []
  const client = connect({
    url: gateway.urls.http,
    topics: ['news/#'],
    onEvent: ({ payload }) => {
      payloads.push(payload)
      throw new Error('of the page')
    },
  })
  onTestFinished(() => client.close())
  await eventually(() => client.cursor !== undefined)
  for (const payload of ['one', 'two']) await publish(gateway, 'news/eu', payload)
  await eventually(() => payloads.length === 2 && faults.length === 2)
  expect(faults).toEqual([new Error('of the page'), new Error('of the page')])
  expect(client.state.phase).toBe('open')
})
