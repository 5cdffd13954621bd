import { request } from 'node:http'
import { describe, expect, it } from 'vitest'
import { isUserName } from '../../../src/base/identity.js'
import { formatId } from '../../../src/journal/event.js'
import { eventually } from '../../helpers/wait.js'
import { startSocketRig, TestSocket } from '../socket-rig.js'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** The status and the text with which a handshake is refused. */
async function refusal(port: number, path: string, headers: Record<string, string> = {}) {
  const asked = request({
    ...{ port, host: '127.0.0.1', path },
    headers: {
      ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
      ...headers,
    },
  })
  asked.end()
  return new Promise<[number | undefined, string]>((resolve, reject) => {
    asked.on('error', reject)
    asked.on('upgrade', () => reject(new Error('it was let in')))
    asked.on('response', async response => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve([response.statusCode, text])
    })
  })
}

describe('a socket', () => {
  it('is welcomed, gets what is retained, and then what comes, once for any number of its filters', async () => {
    const rig = await startSocketRig()
    await rig.publish('news/old', 'state', { retain: true })
    const socket = await rig.connect('?topic=news/%2B&topic=news/%23&device=tablet')
    const [welcome] = socket.told
    expect(welcome).toEqual({
      type: 'welcome',
      connection: expect.stringMatching(/^[\w-]{22}$/),
      device: 'tablet',
      topics: { in: `socket/${socket.id}/in`, out: `socket/${socket.id}/out` },
      heartbeat: 15,
    })
    const live = await socket.next('live')
    expect(live['cursor']).toBe(formatId(rig.journal.epoch, 1))
    const { id, time } = await rig.publish('news/new', 'event', { qos: 2 })
    const event = await socket.next('event')
    expect(event).toEqual({
      ...{ type: 'event', id, topic: 'news/new', time: new Date(time).toISOString() },
      ...{ payload: 'event' },
    })
    expect(socket.events[0]).toMatchObject({ topic: 'news/old', payload: 'state', retained: true })
    expect(socket.events).toHaveLength(2)
  })

  it('goes on after a cursor, is told of a gap, and of the newest events where it asks for them', async () => {
    const rig = await startSocketRig()
    for (const payload of ['1', '2', '3']) await rig.publish('t', payload)
    const { epoch } = rig.journal
    const again = await rig.connect(`?topic=t&cursor=${formatId(epoch, 1)}`)
    await again.next('live')
    expect(again.payloads()).toEqual(['2', '3'])
    const lost = await rig.connect('?topic=t&cursor=nonsense')
    await lost.next('live')
    expect(lost.told.map(({ type }) => type)).toEqual(['welcome', 'gap', 'event', 'event', 'event', 'live'])
    expect(lost.told[1]).toEqual({ type: 'gap', reason: 'unknown', cursor: 'nonsense', resumes: formatId(epoch, 0) })
    const late = await rig.connect('?topic=t&last=1')
    await late.next('live')
    expect(late.payloads()).toEqual(['3'])
  })

  it('carries every payload, of every length of frame, and JSON as what it says where that is asked for', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect('?topic=t&json=true')
    await socket.next('live')
    const payloads = ['', 'a\r\n\0\u2028"', '{"a":[1]}', 'x'.repeat(200), 'é'.repeat(40_000), 'z'.repeat(200_000)]
    for (const payload of payloads) await rig.publish('t', payload)
    await rig.publish('t', Buffer.from([0xff, 0x00]))
    await eventually(() => socket.events.length === payloads.length + 1)
    expect(socket.payloads().slice(0, -1)).toEqual(payloads)
    expect(socket.events[2]).toMatchObject({ json: { a: [1] } })
    expect(socket.events.at(-1)).toMatchObject({ payloadBase64: '/wA=' })
  })

  it('gets a device of its own where it names none, and needs no topic', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    expect(socket.told[0]?.['device']).toMatch(uuid)
    expect(isUserName(String(socket.told[0]?.['device']))).toBe(true)
    await socket.next('live')
    expect(rig.attendances).toMatchObject([{ transport: 'socket', topics: [`socket/${socket.id}/out`], left: false }])
    await socket.close()
    await eventually(() => rig.attendances[0]?.left === true)
    expect(rig.hub.counters.subscribers).toBe(0)
    expect(rig.options.connections.size).toBe(0)
    expect(rig.route.size).toBe(0)
  })

  it('speaks mqway, or nothing, and never says a token back', async () => {
    const rig = await startSocketRig()
    const named = await rig.connect('', { protocols: ['mqway', 'bearer.a.b'] })
    expect(named.webSocket.protocol).toBe('mqway')
    expect((await rig.connect()).webSocket.protocol).toBe('')
    expect(await refusal(rig.port, '/v1/socket', { 'sec-websocket-protocol': 'mqtt' })).toEqual([
      400,
      'None of the offered subprotocols is spoken here: offer mqway, or none\n',
    ])
  })

  it.each([
    ['topic=a%23', 'topic must have # alone in its level, as in news/#'],
    ['topic=', 'topic must not be empty'],
    ['last=many', 'last must be a whole number from 0 to 10000'],
    ['json=yes', 'json must be true or false'],
    ['device=%0a', 'device must have 1 to 255 bytes, and no control characters'],
    [`topic=${'a%2f'.repeat(101)}`, 'topic must have at most 100 levels'],
  ])('is refused with %s, before it is one', async (query, detail) => {
    const rig = await startSocketRig()
    expect(await refusal(rig.port, `/v1/socket?${query}`)).toEqual([400, `A parameter is invalid: ${detail}\n`])
  })

  it('is told its place every so often while nothing comes', async () => {
    const rig = await startSocketRig({ push: { heartbeat: 50 } })
    const socket = await rig.connect('?topic=t')
    await socket.next('live')
    const { id } = await rig.publish('elsewhere')
    await eventually(() => socket.told.at(-1)?.['cursor'] === id)
    expect(socket.told.at(-1)).toEqual({ type: 'live', cursor: id })
  })

  it('is asked whether it is there, and ended where it does not answer twice', async () => {
    const rig = await startSocketRig({ socket: { pingInterval: 40 } })
    const mute = await rig.connect('', { autoPong: false })
    const alive = await rig.connect()
    let pings = 0
    mute.webSocket.on('ping', () => pings++)
    await eventually(() => mute.closed !== undefined)
    expect(mute.closed).toEqual({ code: 1011, reason: 'The client did not answer two pings' })
    expect(mute.told.at(-1)).toMatchObject({ type: 'end', reason: 'ping-timeout' })
    expect(pings).toBe(2)
    expect(alive.closed).toBeUndefined()
  })

  it('ends with its cursor when the gateway shuts down', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect('?topic=t')
    await socket.next('live')
    const { id } = await rig.publish('t', 'last')
    await socket.next('event')
    await rig.route.close(1000)
    await eventually(() => socket.closed !== undefined)
    expect(socket.told.at(-1)).toEqual({
      ...{ type: 'end', reason: 'shutting-down', detail: 'The gateway is shutting down', retryAfter: 5 },
      cursor: id,
    })
    expect(socket.closed).toEqual({ code: 1001, reason: 'The gateway is shutting down' })
    expect(rig.route.size).toBe(0)
    expect((await refusal(rig.port, '/v1/socket'))[0]).toBe(503)
  })

  it('is cut off with its cursor where it reads too slowly, and nobody else is; it comes back and has missed nothing', async () => {
    const rig = await startSocketRig({ push: { maxQueuedEvents: 50, maxQueuedBytes: 2 ** 20 } })
    const slow = await rig.connect('?topic=t')
    const quick = await rig.connect('?topic=t')
    await slow.next('live')
    await quick.next('live')
    slow.webSocket.pause()
    const payload = 'x'.repeat(20_000)
    let published = 0
    while (rig.hub.counters.cutOff === 0 && published < 5000) {
      await rig.publish('t', `${++published} ${payload}`)
      await new Promise(setImmediate)
    }
    await eventually(() => quick.events.length === published)
    expect(quick.closed).toBeUndefined()
    // It has been cut off before it reads again.
    await eventually(() => rig.route.size === 1)
    slow.webSocket.resume()
    await eventually(() => slow.closed !== undefined)
    const last = slow.events.at(-1)
    const again = await rig.connect(`?topic=t&cursor=${last?.['id']}`)
    await again.next('live')
    expect(slow.events.length + again.events.length).toBe(published)
    expect(again.told.some(({ type }) => type === 'gap')).toBe(false)
  })

  it.each([
    ['a frame that is not masked', [0x81, 0x02, 0x7b, 0x7d], 1002],
    ['a reserved bit', [0xc1, 0x80, 0, 0, 0, 0], 1002],
    ['text that is no UTF-8', [0x81, 0x81, 0, 0, 0, 0, 0xff], 1007],
  ])('ends with %s, and its log says why', async (_, bytes, code) => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    const { _socket: raw } = socket.webSocket as unknown as { _socket: NodeJS.WritableStream }
    raw.write(Buffer.from(bytes))
    await eventually(() => socket.closed !== undefined)
    expect(socket.closed?.code).toBe(code)
    await rig.log.line(/break RFC 6455/)
    await eventually(() => rig.route.size === 0)
  })

  it('answers the last one of many pings that it reads at once', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    const pongs: string[] = []
    socket.webSocket.on('pong', data => pongs.push(String(data)))
    const { _socket: raw } = socket.webSocket as unknown as {
      _socket: NodeJS.WritableStream & { cork(): void; uncork(): void }
    }
    raw.cork()
    for (let number = 1; number <= 1000; number++) socket.webSocket.ping(`${number}`)
    raw.uncork()
    await eventually(() => pongs.includes('1000'))
    expect(pongs.length).toBeLessThan(100)
  })

  it('answers pings, and not those of somebody who never reads', async () => {
    const rig = await startSocketRig()
    const socket = await rig.connect()
    let pongs = 0
    socket.webSocket.on('pong', () => pongs++)
    socket.webSocket.ping('one')
    await eventually(() => pongs === 1)
    socket.webSocket.pause()
    for (let left = 100_000; left > 0; left--) socket.webSocket.ping('x'.repeat(125))
    await eventually(() => socket.webSocket.bufferedAmount === 0)
    expect(rig.route.bufferedBytes).toBeLessThan(100_000)
  })

  it('gets what comes in one turn in one write, and the same bytes as all others', async () => {
    const rig = await startSocketRig()
    const socket = new TestSocket(`ws://127.0.0.1:${rig.port}/v1/socket?topic=t`)
    await socket.next('live')
    let chunks = 0
    socket.webSocket.once('open', () => {})
    const { _socket: raw } = socket.webSocket as unknown as { _socket: NodeJS.ReadableStream }
    raw.on('data', () => chunks++)
    await Promise.all(Array.from({ length: 20 }, (_, index) => rig.publish('t', String(index))))
    await eventually(() => socket.events.length === 20)
    expect(chunks).toBe(1)
  })
})
