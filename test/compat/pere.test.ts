import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { get } from 'node:http'
import { connect } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { startTestGateway } from '../helpers/gateway.js'
import { nextMessage } from '../helpers/mqtt-messages.js'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'
import { openSource, openSource2 } from '../transports/event-source.js'
import { EmEventSource } from './em-event-source.js'
import { pereAt, startPere } from './pere-rig.js'

const channel = 'CHANNEL_1'
const uuid = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/
const iso = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

interface DeviceView {
  readonly op: string
  readonly at: string
  readonly 'Last-Event-Id': string
}

describe('PERE', () => {
  it('takes an event with 204, and gives it to every device of its channel as it was published', async () => {
    const pere = await startPere()
    const sources = await Promise.all(['H1', 'H2'].map(device => pere.feed(channel, device)))
    const other = await pere.feed('CHANNEL_2', 'H3')
    const body = '{"channel":"CHANNEL_1","device":"P1","id":1,"time":"2014-11-25T08:12:09Z","data":"jvg2"}'
    const answer = await pere.push(channel, body, { Device: 'P1', 'Content-Type': 'application/json' })
    expect(await answer.text()).toBe('')
    const id = answer.headers.get('event-id')
    for (const source of sources) expect(await source.got(1)).toEqual([{ id, data: body }])
    await pere.push('CHANNEL_2', 'other')
    expect((await other.got(1)).map(({ data }) => data)).toEqual(['other'])
  })

  it('has a feed look as PERE’s does', async () => {
    const pere = await startPere()
    const source = await openSource(`${pere.url}/feed/${channel}`, { Device: 'H1', Accept: 'text/event-stream' })
    onTestFinished(() => source.leave())
    expect(source.status).toBe(200)
    expect(source.headers).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
    })
    await eventually(() => source.parser.lastEventId !== '')
    expect(source.parser.retry).toBeGreaterThanOrEqual(1000)
    await pere.push(channel, '{"data":1}')
    await eventually(() => source.parser.events.length === 3)
    expect(source.parser.events.map(({ type, data }) => [type, data])).toEqual([
      ['device', 'H1'],
      // The message of its presence is the first event, and may be there by now.
      ['live', expect.stringMatching(/^{"cursor":"[0-9a-z]{15}-[01]"}$/)],
      ['message', '{"data":1}'],
    ])
  })

  it.each([
    { what: 'quotes and backslashes', body: String.raw`{"data":"\"quoted\" \\ 'and' \u0000"}` },
    { what: 'line breaks', body: '{\n  "data": [\n\n    1\n  ]\n}\n' },
    { what: 'emoji', body: '{"data":"👩‍👩‍👧 naïve ﷽"}' },
    { what: 'the end of a script', body: '{"data":"</script><script>alert(1)</script>"}' },
    { what: 'a line that looks like a field', body: '{"data":\n1}\nid: 7\ndata: x\n\nretry: 1' },
    { what: '1 MiB', body: JSON.stringify({ data: 'x'.repeat(1024 ** 2) }) },
    { what: 'no JSON', body: ': colon' },
    { what: 'nothing', body: '' },
  ])('carries $what', async ({ body }) => {
    const pere = await startPere({ limits: { bodySize: '2MiB' } })
    const source = await openSource(`${pere.url}/feed/${channel}`)
    onTestFinished(() => source.leave())
    await eventually(() => source.parser.lastEventId !== '')
    await pere.push(channel, body)
    await eventually(() => source.parser.events.some(({ type }) => type === 'message'))
    expect(source.parser.events.at(-1)?.data).toBe(body)
  })

  it('carries JSON with the line breaks of Windows, as the same JSON', async () => {
    const pere = await startPere()
    const source = await pere.feed(channel, 'H1')
    await pere.push(channel, '{\r\n  "data": "a\\r\\nb"\r\n}\r')
    const [message] = await source.got(1)
    expect(JSON.parse(message?.data ?? '')).toEqual({ data: 'a\r\nb' })
  })

  it('carries bytes that are no text under a name that PERE’s clients do not know', async () => {
    const pere = await startPere()
    const source = await pere.feed(channel, 'H1')
    const names: string[] = []
    source.on('named', name => names.push(name))
    await pere.push(channel, Buffer.from([0xff, 0x00, 0x0a]))
    await pere.push(channel, 'text')
    expect((await source.got(1)).map(({ data }) => data)).toEqual(['text'])
    expect(names).toEqual(['base64'])
  })

  it('has two ids for two events of the same millisecond', async () => {
    const pere = await startPere()
    const source = await pere.feed(channel, 'H1')
    const publisher = await mqtt.connectAsync(pere.gateway.urls.mqtt)
    onTestFinished(() => publisher.endAsync(true))
    for (let number = 0; number < 200; number++) publisher.publish(channel, JSON.stringify({ number }))
    const messages = await source.got(200)
    expect(messages.map(({ data }) => JSON.parse(data).number)).toEqual(Array.from({ length: 200 }, (_, at) => at))
    expect(new Set(messages.map(({ id }) => id)).size).toBe(200)
    const events = await pere.admin<{ id: string; time: string }[]>(`events/${channel}`)
    expect(new Set(events.map(({ id }) => id)).size).toBe(100)
    expect(new Set(events.map(({ time }) => time)).size).toBeLessThan(100)
  })

  it('goes on after the last id, each event once, whatever the connection does', async () => {
    const pere = await startPere()
    const first = await pere.feed(channel, 'H1')
    await pere.push(channel, 'one')
    const [{ id = '' } = {}] = await first.got(1)
    first.close()
    for (const body of ['two', 'three']) await pere.push(channel, body)
    await pere.push('CHANNEL_2', 'other')
    const second = await pere.feed(channel, 'H1', { headers: { 'Last-Event-Id': id } })
    expect((await second.got(2)).map(({ data }) => data)).toEqual(['two', 'three'])
  })

  it('has somebody who got nothing yet miss nothing when they come back', async () => {
    const pere = await startPere()
    const first = await pere.feed(channel, 'H1')
    first.close()
    await pere.push(channel, 'meanwhile')
    const second = await pere.feed(channel, 'H1', { headers: { 'Last-Event-Id': first.lastEventId } })
    expect((await second.got(1)).map(({ data }) => data)).toEqual(['meanwhile'])
  })

  it.each(['2014-12-01T15:01:45.025Z', 'nonsense', '000000000000000-7'])(
    'answers a last id of another server (%s) with 200, with what there is, and with a gap for those who know it',
    async id => {
      const pere = await startPere()
      await pere.push(channel, 'one')
      const names: string[] = []
      const source = new EmEventSource(`${pere.url}/feed/${channel}`, { headers: { 'Last-Event-Id': id } })
      onTestFinished(() => source.close())
      source.on('named', name => names.push(name))
      expect((await source.got(1)).map(({ data }) => data)).toEqual(['one'])
      expect(names.slice(0, 2)).toEqual(['device', 'gap'])
    },
  )

  it('gives a newcomer what is retained, with an id for feedback', async () => {
    const pere = await startPere()
    const publisher = await mqtt.connectAsync(pere.gateway.urls.mqtt)
    onTestFinished(() => publisher.endAsync(true))
    await publisher.publishAsync(channel, '{"data":"state"}', { qos: 1, retain: true })
    const source = await pere.feed(channel, 'H1')
    const [message] = await source.got(1)
    expect(message?.data).toBe('{"data":"state"}')
    const answer = await pere.feedback(channel, 'H1', message?.id ?? '')
    expect(answer.headers.get('feedback')).toBe('kept')
  })

  it('lets a channel be any topic, in one part of the path', async () => {
    const pere = await startPere()
    const topic = `/news/europe/${'sport '.repeat(40)}é👩‍👩‍👧?&%`
    const source = await pere.feed(topic, 'H1')
    const subscriber = await mqtt.connectAsync(pere.gateway.urls.mqtt)
    onTestFinished(() => subscriber.endAsync(true))
    await subscriber.subscribeAsync('/news/#')
    const received = nextMessage(subscriber)
    await pere.push(topic, '{"data":1}')
    expect((await received).topic).toBe(topic)
    expect(await source.got(1)).toHaveLength(1)
    expect(await pere.admin<unknown[]>(`events/${encodeURIComponent(topic)}`)).toHaveLength(1)
  })

  it.each([
    { path: 'push/a%23', method: 'POST', problem: 'without the wildcards' },
    { path: 'push/a%2B', method: 'POST', problem: 'without the wildcards' },
    { path: 'feed/%23', method: 'GET', problem: 'without the wildcards' },
    { path: 'feed/%00', method: 'GET', problem: 'must' },
    { path: 'feed/$SYS%2Fbroker', method: 'GET', problem: '$SYS' },
    { path: `feed/${'a%2F'.repeat(200)}`, method: 'GET', problem: 'at most 100 levels' },
    { path: 'feed/', method: 'GET', problem: 'must not be empty' },
    { path: `feed/a?device=${'x'.repeat(300)}`, method: 'GET', problem: 'Device must have' },
    { path: 'feedback/a', method: 'POST', problem: 'Device is missing' },
    { path: 'feedback/a?device=H1', method: 'POST', problem: 'Last-Event-Id is missing' },
    { path: 'feedback/a?device=H1&last_event_id=x', method: 'POST', problem: 'status is missing' },
    { path: 'admin/events/%23', method: 'GET', problem: 'without the wildcards' },
  ])('says in a sentence what is wrong with $method $path', async ({ path, method, problem }) => {
    const pere = await startPere()
    const answer = await fetch(`${pere.url}/${path}`, { method, ...(method === 'POST' && { body: 'x=y' }) })
    expect(answer.status).toBe(400)
    expect(answer.headers.get('content-type')).toMatch(/^text\/plain/)
    expect(await answer.text()).toContain(problem)
  })

  it('answers other methods with 405, and what is not there with 404', async () => {
    const pere = await startPere()
    expect((await fetch(`${pere.url}/push/${channel}`)).status).toBe(405)
    expect((await fetch(`${pere.url}/feed/${channel}`, { method: 'POST' })).status).toBe(405)
    expect((await fetch(`${pere.url}/nothing`)).status).toBe(404)
  })

  it('answers HEAD for whoever wants to know whether there is a feed', async () => {
    const pere = await startPere()
    const answer = await fetch(`${pere.url}/feed/${channel}`, { method: 'HEAD' })
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/event-stream'])
    expect(await pere.admin('connections')).toEqual({ 'total number': 0 })
  })

  it('refuses a body that is too large', async () => {
    const pere = await startPere({ limits: { bodySize: '1KiB' } })
    const answer = await fetch(`${pere.url}/push/${channel}`, { method: 'POST', body: 'x'.repeat(2000) })
    expect(answer.status).toBe(413)
  })

  it('counts what is pushed with what the same somebody publishes otherwise', async () => {
    const pere = await startPere({ limits: { publishesPerSecond: 1, publishesBurst: 2 } })
    await pere.push(channel, 'one')
    await fetch(`${pere.gateway.urls.http}/v1/publish?topic=${channel}`, { method: 'POST', body: 'two' })
    const answer = await fetch(`${pere.url}/push/${channel}`, { method: 'POST', body: 'three' })
    expect(answer.status).toBe(429)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
  })

  it('works at the root, and where it is told to be, and is not there where it is off', async () => {
    const atRoot = await startPere({ compat: { pere: { prefix: '/' } } }, '')
    const source = await atRoot.feed(channel, 'H1')
    await atRoot.push(channel, 'one')
    expect(await source.got(1)).toHaveLength(1)
    expect(await atRoot.admin('connections')).toEqual({ CHANNEL_1: 1, 'total number': 1 })
    expect((await fetch(`${atRoot.gateway.urls.http}/`)).headers.get('content-type')).toContain('text/html')

    const elsewhere = await startPere({ compat: { pere: { prefix: '/a/b' } } }, '/a/b')
    await elsewhere.push(channel, 'one')
    expect((await fetch(`${elsewhere.gateway.urls.http}/pere/admin/connections`)).status).toBe(404)

    const off = await startPere({ compat: { pere: 'off' } })
    expect((await fetch(`${off.url}/admin/connections`)).status).toBe(404)
  })

  it('is a feed over HTTP/2 as well', async () => {
    const pere = await startPere({ https: { port: 0 } })
    const session = connect(pere.gateway.urls.https, { rejectUnauthorized: false })
    onTestFinished(() => session.destroy())
    const source = await openSource2(session, `/pere/feed/${channel}`, { device: 'H1' })
    await eventually(() => source.parser.lastEventId !== '')
    await pere.push(channel, 'one')
    await eventually(() => source.parser.events.some(({ data }) => data === 'one'))
    expect(await pere.admin('connections')).toEqual({ CHANNEL_1: 1, 'total number': 1 })
    source.leave()
    await vi.waitFor(async () => expect(await pere.admin('connections')).toEqual({ 'total number': 0 }))
  })
})

describe('a device of PERE', () => {
  it('is who its header says, or the query, where an EventSource can set no header', async () => {
    const pere = await startPere()
    await pere.feed(channel, 'H1')
    const source = await openSource(`${pere.url}/feed/${channel}?device=W1`)
    onTestFinished(() => source.leave())
    await eventually(() => source.parser.lastEventId !== '')
    expect(Object.keys(await pere.admin<object>(`devices/${channel}`)).sort()).toEqual(['H1', 'W1'])
  })

  it('is told the UUID that it has where it gives no name', async () => {
    const pere = await startPere()
    const source = await openSource(`${pere.url}/feed/${channel}`)
    onTestFinished(() => source.leave())
    await eventually(() => source.parser.events.length === 1)
    const device = String(source.headers['device'])
    expect(device).toMatch(uuid)
    expect(source.parser.events).toMatchObject([{ type: 'device', data: device }])
    expect(Object.keys(await pere.admin<object>(`devices/${channel}`))).toEqual([device])
  })

  it('may have a name in UTF-8', async () => {
    const pere = await startPere()
    const device = 'кухня 👩‍👩‍👧'
    const asLatin1 = Buffer.from(device).toString('latin1')
    const source = await openSource(`${pere.url}/feed/${channel}`, { Device: asLatin1 })
    onTestFinished(() => source.leave())
    await eventually(() => source.parser.events.length === 1)
    expect(source.parser.events).toMatchObject([{ type: 'device', data: device }])
  })
})

describe('the feedback of PERE', () => {
  it('is a receipt: in /v1/receipts, and on receipts/…', async () => {
    const pere = await startPere()
    const subscriber = await mqtt.connectAsync(pere.gateway.urls.mqtt)
    onTestFinished(() => subscriber.endAsync(true))
    await subscriber.subscribeAsync('receipts/#', { qos: 1 })
    const told = nextMessage(subscriber)
    const source = await pere.feed(channel, 'H1')
    await pere.push(channel, '{"data":1}')
    const [{ id = '' } = {}] = await source.got(1)
    const answer = await pere.feedback(channel, 'H1', id)
    expect([answer.status, await answer.text(), answer.headers.get('feedback')]).toEqual([200, '', 'kept'])
    const said = { device: 'H1', status: 'received', detail: 'rx ok' }
    const report = await (await fetch(`${pere.gateway.urls.http}/v1/receipts?id=${id}`)).json()
    expect(report).toMatchObject({ topic: channel, receipts: [said] })
    const { topic, payload } = await told
    expect(topic).toBe(`receipts/${channel}`)
    expect(JSON.parse(String(payload))).toMatchObject({ type: 'receipt', id, topic: channel, ...said })
  })

  it('keeps the first status that is a device’s own word, and goes on to processed or failed', async () => {
    const pere = await startPere()
    const id = (await pere.push(channel, 'one')).headers.get('event-id') ?? ''
    const outcomes: (string | null)[] = []
    for (const status of ['rx "ok" \\ é👩‍👩‍👧\n</script>', 'again', 'processed', 'failed']) {
      outcomes.push((await pere.feedback(channel, 'H1', id, status)).headers.get('feedback'))
    }
    expect(outcomes).toEqual(['kept', 'known', 'kept', 'known'])
    const other = await pere.feedback(channel, 'H2', id, 'rx "ok" \\ é👩‍👩‍👧\n</script>')
    expect(other.status).toBe(200)
    const report = await (await fetch(`${pere.gateway.urls.http}/v1/receipts?id=${id}`)).json()
    expect(report).toMatchObject({
      receipts: [
        { device: 'H1', status: 'processed', detail: 'processed' },
        { device: 'H2', status: 'received', detail: 'rx "ok" \\ é👩‍👩‍👧\n</script>' },
      ],
    })
  })

  it.each(['2014-12-01T15:02:07.066Z', '000000000000000-1'])(
    'is 200 for an event that is not there (%s), as with PERE, and kept nowhere',
    async id => {
      const pere = await startPere()
      await pere.push(channel, 'one')
      const answer = await pere.feedback(channel, 'H1', id)
      expect([answer.status, await answer.text(), answer.headers.get('feedback')]).toEqual([200, '', 'unknown-event'])
      expect(await pere.admin(`devices/${channel}`)).toEqual({})
    },
  )

  it('is not kept for an event of another channel', async () => {
    const pere = await startPere()
    const id = (await pere.push('CHANNEL_2', 'one')).headers.get('event-id') ?? ''
    expect((await pere.feedback(channel, 'H1', id)).headers.get('feedback')).toBe('unknown-event')
    expect(await pere.admin('devices/CHANNEL_2')).toEqual({})
  })

  it('is a form of any kind that a page or curl sends', async () => {
    const pere = await startPere()
    const id = (await pere.push(channel, 'one')).headers.get('event-id') ?? ''
    const post = async (device: string, body: string | FormData, type: Record<string, string> = {}) => {
      const headers = { Device: device, 'Last-Event-Id': id, ...type }
      const answer = await fetch(`${pere.url}/feedback/${channel}`, { method: 'POST', headers, body })
      return answer.headers.get('feedback') ?? answer.status
    }
    const form = new FormData()
    form.set('other', 'x')
    form.set('status', 'rx "ok" é\r\n--x')
    expect(await post('H1', form)).toBe('kept')
    expect(await post('H2', 'status=rx+ok', { 'Content-Type': 'text/plain' })).toBe('kept')
    const report = await (await fetch(`${pere.gateway.urls.http}/v1/receipts?id=${id}`)).json()
    expect(report).toMatchObject({ receipts: [{ detail: 'rx "ok" é\r\n--x' }, { detail: 'rx ok' }] })
    const multipart = { 'Content-Type': 'multipart/form-data; boundary=x' }
    expect(await post('H3', '--x\r\nnonsense', multipart)).toBe(400)
    const written = '--x\r\nContent-Disposition: form-data; name="status"\r\n\r\nok\r\n--x--\r\n'
    expect(await post('H4', written, { 'Content-Type': 'Multipart/Form-Data; boundary=x' })).toBe('kept')
    const file = new FormData()
    file.set('status', new Blob(['rx ok']), 'status.txt')
    expect(await post('H3', file)).toBe(400)
    expect(await post('H3', `status=ok&x=${'x'.repeat(16 * 1024)}`)).toBe(400)
  })

  it('has at most 1 KiB of status', async () => {
    const pere = await startPere()
    const id = (await pere.push(channel, 'one')).headers.get('event-id') ?? ''
    expect((await pere.feedback(channel, 'H1', id, 'é'.repeat(513))).status).toBe(400)
    expect((await pere.feedback(channel, 'H1', id, 'é'.repeat(512))).status).toBe(200)
  })
})

describe('the administrator of PERE', () => {
  it('sees how many connections there are on each channel', async () => {
    const pere = await startPere()
    expect(await pere.admin('connections')).toEqual({ 'total number': 0 })
    const sources = []
    for (const name of ['CHANNEL_1', 'CHANNEL_1', 'CHANNEL_1', 'CHANNEL_1', 'CHANNEL_3', 'CHANNEL_3']) {
      sources.push(await pere.feed(name, `H${sources.length}`))
    }
    const text = await (await fetch(`${pere.url}/admin/connections`)).text()
    expect(text).toBe('{\n  "CHANNEL_1":4,\n  "CHANNEL_3":2,\n  "total number":6\n}\n')
    for (const source of sources.slice(4)) source.close()
    const left = { CHANNEL_1: 4, 'total number': 4 }
    await vi.waitFor(async () => expect(await pere.admin('connections')).toEqual(left))
  })

  it('sees the events of a channel', async () => {
    const pere = await startPere()
    const time = '2014-12-01T15:09:15.691Z'
    const body = { channel, device: 'P0039163746978', id: 1, time, data: 'l6rqih112by5hl7z21' }
    await pere.push(channel, JSON.stringify(body), { Device: 'P0039163746978' })
    await pere.push('CHANNEL_2', 'other')
    const text = await (await fetch(`${pere.url}/admin/events/${channel}`)).text()
    expect(text).toBe(`[
  {
    "device":"P0039163746978",
    "time":"2014-12-01T15:09:15.691Z",
    "id":1,
    "data":"l6rqih112by5hl7z21"
  }
]
`)
  })

  it('sees who published, and when, and an id, where the body does not say', async () => {
    const pere = await startPere()
    const answer = await pere.push(channel, '{"channel":"CHANNEL_1","pub_id":179,"data":"kypc"}', { Device: 'P1' })
    await pere.push(channel, 'no JSON')
    await pere.push(channel, Buffer.from([0xff]))
    const id = answer.headers.get('event-id')
    const at = { time: expect.stringMatching(iso), id: expect.any(String) }
    expect(await pere.admin(`events/${channel}`)).toEqual([
      { ...at, device: 'P1', id, data: 'kypc', pub_id: 179 },
      { ...at, device: null, data: 'no JSON' },
      { ...at, device: null, dataBase64: '/w==' },
    ])
  })

  it('sees the newest hundred events, and no more than 4 MiB of them', async () => {
    const pere = await startPere({ limits: { bodySize: '8MiB' } })
    for (let id = 1; id <= 120; id++) await pere.push(channel, JSON.stringify({ id }))
    const events = await pere.admin<{ id: number }[]>(`events/${channel}`)
    expect(events.map(({ id }) => id)).toEqual(Array.from({ length: 100 }, (_, at) => at + 21))
    for (let id = 121; id <= 123; id++)
      await pere.push(channel, JSON.stringify({ id, data: 'x'.repeat(1.5 * 2 ** 20) }))
    const large = await pere.admin<{ id: number }[]>(`events/${channel}`)
    expect(large.map(({ id }) => id)).toEqual([122, 123])
  })

  it('sees who listens, and what they did last', async () => {
    const pere = await startPere()
    const id = (await pere.push(channel, 'one')).headers.get('event-id') ?? ''
    await pere.feed(channel, 'H1', { headers: { 'Last-Event-Id': id } })
    await pere.feed(channel, 'H2')
    await pere.feed('CHANNEL_2', 'H3')
    const fed = await pere.admin<Record<string, DeviceView>>(`devices/${channel}`)
    expect(fed).toEqual({
      H1: { op: 'feed', at: expect.stringMatching(iso), 'Last-Event-Id': id },
      H2: { op: 'feed', at: expect.stringMatching(iso), 'Last-Event-Id': '' },
    })
    await pere.feedback(channel, 'H1', id)
    await pere.feedback(channel, 'H4', id)
    const later = await pere.admin<Record<string, DeviceView>>(`devices/${channel}`)
    expect(later).toEqual({
      H1: { op: 'feedback', at: expect.stringMatching(iso), 'Last-Event-Id': id },
      H2: fed['H2'],
      H4: { op: 'feedback', at: expect.stringMatching(iso), 'Last-Event-Id': id },
    })
  })

  it('sees after a restart what was there before', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-pere-'))
    onTestFinished(() => rm(data, { recursive: true, force: true }))
    const config = { data, https: { port: 'off' as const } }
    const first = await startTestGateway(config)
    const before = pereAt(first)
    const source = await before.feed(channel, 'H1')
    await before.push(channel, '{"device":"P1","data":1}')
    const [{ id = '' } = {}] = await source.got(1)
    await before.feedback(channel, 'H1', id)
    source.close()
    await first.close()

    const pere = await startPere(config)
    expect(await pere.admin(`events/${channel}`)).toMatchObject([{ device: 'P1', id, data: 1 }])
    expect(await pere.admin(`devices/${channel}`)).toMatchObject({ H1: { op: 'feedback', 'Last-Event-Id': id } })
    await pere.push(channel, 'after')
    const again = await pere.feed(channel, 'H1', { headers: { 'Last-Event-Id': id } })
    expect((await again.got(1)).map(({ data }) => data)).toEqual(['after'])
  })
})

describe('a feed of PERE', () => {
  it('shows that it is alive before a client gives it up, whatever push.heartbeat says', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => void vi.useRealTimers())
    const pere = await startPere({ push: { heartbeat: '1m' } })
    const request = get(`${pere.url}/feed/${channel}`)
    onTestFinished(() => void request.destroy())
    const [response] = await once(request, 'response')
    let text = ''
    response.on('data', (chunk: Buffer) => {
      text += chunk
    })
    await eventually(() => /\nid: \S+\n\n$/.test(text))
    const before = text
    vi.advanceTimersByTime(36_000)
    await eventually(() => text !== before)
    expect(text.slice(before.length)).toBe(':\n\n')
  })

  it('is closed for good by its client where it is refused for good, and only there', async () => {
    const pere = await startPere({
      anonymous: true,
      access: { rules: [{ to: 'anonymous', publish: ['#'], subscribe: ['open'] }] },
    })
    const refused = new EmEventSource(`${pere.url}/feed/${channel}`)
    await once(refused, 'closed')
    expect(refused.reason).toBe('answered 403')
    const source = await pere.feed('open', 'H1')
    await pere.push('open', 'one')
    expect(await source.got(1)).toHaveLength(1)
  })

  it('has its client come back where there is no room just now, until there is', async () => {
    const pere = await startPere({ limits: { connectionsPerAddress: 3 } })
    const sources = await Promise.all(['H1', 'H2', 'H3'].map(device => pere.feed(channel, device)))
    const late = new EmEventSource(`${pere.url}/feed/${channel}`, { hurry: 100 })
    onTestFinished(() => late.close())
    await once(late, 'lost')
    expect([late.streams, late.retry]).toEqual([1, 10_000])
    for (const source of sources) source.close()
    await pere.push(channel, 'one')
    await eventually(() => late.lastEventId !== '')
    await pere.push(channel, 'two')
    expect((await late.got(1)).at(-1)?.data).toBe('two')
    expect(late.reason).toBe(undefined)
  })

  it('ends with its client, and leaves nothing behind', async () => {
    const pere = await startPere({ push: { presence: { grace: '0ms' } } })
    const source = await pere.feed(channel, 'H1')
    source.close()
    await vi.waitFor(async () => expect(await pere.admin(`devices/${channel}`)).toEqual({}))
    expect(await pere.admin('connections')).toEqual({ 'total number': 0 })
  })

  it('is told the end by a gateway that shuts down, and goes on with the next one', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-pere-'))
    onTestFinished(() => rm(data, { recursive: true, force: true }))
    const first = await startTestGateway({ data, https: { port: 'off' } })
    const port = Number(new URL(first.urls.http).port)
    const source = await pereAt(first).feed(channel, 'H1', { hurry: 20 })
    const named = once(source, 'named')
    await Promise.all([first.close(), once(source, 'lost')])
    expect(await named).toEqual(['end'])
    const pere = await startPere({ data, http: { port } })
    await pere.push(channel, 'from the next one')
    expect((await source.got(1)).map(({ data }) => data)).toEqual(['from the next one'])
  })
})

describe('who may do what with PERE', () => {
  const access = {
    rules: [
      { to: { user: 'publisher' }, publish: ['CHANNEL_1'], subscribe: [] },
      { to: { user: 'listener' }, publish: [], subscribe: ['CHANNEL_1'] },
    ],
    jwt: { secret: '0123456789abcdef0123456789abcdef', audience: 'mqway', issuer: 'mqway' },
  }

  it('is up to the rules for its channels as topics', async () => {
    const tokenOf = (user: string): Promise<string> =>
      new SignJWT({ sub: user })
        .setProtectedHeader({ alg: 'HS256' })
        .setAudience('mqway')
        .setIssuer('mqway')
        .setExpirationTime('1h')
        .sign(new TextEncoder().encode(access.jwt.secret))
    const pere = await startPere({ access })
    const ask = async (user: string, path: string, init: RequestInit = {}): Promise<Response> => {
      const headers = { ...(init.headers as object), authorization: `Bearer ${await tokenOf(user)}` }
      const abort = new AbortController()
      onTestFinished(() => abort.abort())
      return fetch(`${pere.url}/${path}`, { ...init, headers, signal: abort.signal })
    }
    const sent = { method: 'POST', body: 'status=rx+ok' }
    const statuses = async (user: string): Promise<number[]> => {
      const questions: [string, RequestInit?][] = [
        ['push/CHANNEL_1', sent],
        ['feed/CHANNEL_1'],
        ['feedback/CHANNEL_1', { ...sent, headers: { 'Last-Event-Id': 'x' } }],
        ['admin/events/CHANNEL_1'],
        ['admin/devices/CHANNEL_1'],
        ['push/CHANNEL_2', sent],
        ['feed/CHANNEL_2'],
      ]
      return Promise.all(questions.map(async ([path, init]) => (await ask(user, path, init)).status))
    }
    expect(await statuses('publisher')).toEqual([204, 403, 403, 403, 403, 403, 403])
    expect(await statuses('listener')).toEqual([403, 200, 200, 200, 200, 403, 403])
    expect((await fetch(`${pere.url}/feed/CHANNEL_1`)).status).toBe(401)
    expect((await fetch(`${pere.url}/admin/connections`)).status).toBe(401)
    expect(await (await ask('listener', 'admin/connections')).json()).toEqual({ CHANNEL_1: 1, 'total number': 1 })
    expect(await (await ask('publisher', 'admin/connections')).json()).toEqual({ 'total number': 0 })
    // Who is known is the device, whatever the header says.
    const devices = await (await ask('listener', 'admin/devices/CHANNEL_1', { headers: { Device: 'H1' } })).json()
    expect(Object.keys(devices as object)).toEqual(['listener'])
    expect(await (await ask('listener', 'admin/events/CHANNEL_1')).json()).toMatchObject([{ device: 'publisher' }])
  })

  it('lets pages of other origins ask where push.origins names them', async () => {
    const origin = 'https://a.example'
    const pere = await startPere({ push: { origins: [origin] } })
    const preflight = await fetch(`${pere.url}/feedback/${channel}`, { method: 'OPTIONS', headers: { origin } })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-headers')).toMatch(/device, last-event-id/)
    const answer = await fetch(`${pere.url}/admin/connections`, { headers: { origin } })
    expect(answer.headers.get('access-control-allow-origin')).toBe(origin)
    const other = await fetch(`${pere.url}/admin/connections`, { headers: { origin: 'https://b.example' } })
    expect(other.status).toBe(403)
  })
})

describeWith(['mosquitto_pub', 'mosquitto_sub'], 'PERE beside real clients of MQTT', () => {
  it('gives devices what mosquitto_pub publishes, and mosquitto_sub what is pushed', async () => {
    const pere = await startPere()
    const host = ['-h', '127.0.0.1', '-p', String(pere.gateway.mqttPort)]
    const source = await pere.feed(channel, 'H1')
    const published = run('mosquitto_pub', [...host, '-t', channel, '-q', '1', '-m', '{"data":"from mosquitto_pub"}'])
    expect(await published.exited()).toBe(0)
    expect((await source.got(1)).map(({ data }) => data)).toEqual(['{"data":"from mosquitto_pub"}'])

    const subscriber = run('mosquitto_sub', [...host, '-t', 'CHANNEL_2', '-C', '1', '-W', '20', '-v'])
    onTestFinished(() => subscriber.stop())
    await eventually(async () => Object.keys(await pere.admin<object>('devices/CHANNEL_2')).length === 1)
    await pere.push('CHANNEL_2', '{"data":"from PERE"}')
    expect(await subscriber.line()).toBe('CHANNEL_2 {"data":"from PERE"}')
  })
})
