import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Message } from '../../src/mqtt/message.js'
import { decodeMessageProperties, encodeProperties } from '../../src/mqtt/properties.js'
import { eventJson } from '../../src/transports/event-json.js'
import { registerPoll } from '../../src/transports/poll/poll.js'
import { registerPublish } from '../../src/transports/publish.js'
import { readAll } from '../contracts/journal.js'
import { type Rig, startRig } from './rig.js'

let rig: Rig

afterEach(async () => {
  vi.useRealTimers()
  await rig?.close()
})

async function start(): Promise<void> {
  const publisher = { connected: true, publish: (message: Message) => rig.journal.append(message) }
  rig = await startRig({
    register: (app, transport) => {
      registerPublish(app, transport)
      registerPoll(app, transport)
    },
    parts: { publisher },
  })
}

async function post(query: string, body: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${rig.url}/v1/publish${query}`, { method: 'POST', headers, body })
  return { status: response.status, body: (await response.json()) as { detail?: string; parameter?: string } }
}

const json = (members: object, headers?: Record<string, string>) => post('', JSON.stringify(members), headers)

/** The newest event in the journal, with its properties decoded. */
async function newest() {
  const event = (await readAll(rig.journal, ['#'], 0)).at(-1)
  return { ...event, properties: event?.properties && decodeMessageProperties(event.properties) }
}

describe('an event as JSON', () => {
  const event = {
    id: 'x',
    sequence: 1,
    topic: 'a',
    time: 0,
    payload: Buffer.from('1'),
    qos: 0,
    retained: true,
  } as const

  it('has the properties that there are', () => {
    const properties = encodeProperties({
      payloadFormatIndicator: true,
      contentType: 'text/plain',
      responseTopic: 'r/1',
      correlationData: Buffer.from([0, 255]),
      userProperties: [
        ['b', '1'],
        ['a', ''],
        ['b', '2'],
      ],
    })
    const expires = Date.UTC(2030, 0)
    expect(JSON.parse(eventJson({ ...event, properties, expires }, { json: true }))).toEqual({
      ...{ id: 'x', topic: 'a', time: '1970-01-01T00:00:00.000Z', payload: '1', json: 1, retained: true },
      contentType: 'text/plain',
      userProperties: [
        ['b', '1'],
        ['a', ''],
        ['b', '2'],
      ],
      responseTopic: 'r/1',
      correlationData: 'AP8=',
      expires: '2030-01-01T00:00:00.000Z',
    })
  })

  it.each([
    [{}, []],
    [{ expires: 1 }, ['expires']],
    [{ properties: encodeProperties({ payloadFormatIndicator: true }) }, []],
    [{ properties: encodeProperties({ contentType: 'a' }) }, ['contentType']],
  ])('has no others: %o', (members, names) => {
    const written = Object.keys(JSON.parse(eventJson({ ...event, ...members }, { json: false })))
    expect(written).toEqual(['id', 'topic', 'time', 'payload', ...names, 'retained'])
  })
})

describe('a published message', () => {
  it('has its properties, which arrive as they were given', async () => {
    await start()
    const pairs = [
      ['b', '1'],
      ['a', 'ü'],
      ['b', ''],
    ]
    const members = { contentType: 'text/x', responseTopic: 'r', correlationData: 'AP8=', userProperties: pairs }
    expect((await json({ topic: 't', payload: 'x', expires: '1m', ...members })).status).toBe(201)
    expect(await newest()).toMatchObject({
      properties: { contentType: 'text/x', responseTopic: 'r', correlationData: Buffer.from([0, 255]) },
    })
    const poll = await fetch(`${rig.url}/v1/poll?topic=t&last=1&timeout=0`)
    const { events } = (await poll.json()) as { events: { expires: string; time: string }[] }
    expect(events).toMatchObject([{ topic: 't', ...members }])
    const [{ expires, time } = { expires: '', time: '' }] = events
    expect(Math.abs(Date.parse(expires) - Date.parse(time) - 60_000)).toBeLessThan(1000)
  })

  it('takes user properties as an object, too', async () => {
    await start()
    await post('', '{"topic":"t","payload":"","userProperties":{"a":["1","2"],"__proto__":"x","b":"3"}}')
    expect((await newest()).properties?.userProperties).toEqual([
      ['a', '1'],
      ['a', '2'],
      ['__proto__', 'x'],
      ['b', '3'],
    ])
  })

  it('has none without any', async () => {
    await start()
    await json({ topic: 't', payload: 'x', userProperties: [] })
    const event = await newest()
    expect([event.properties, event.expires]).toEqual([undefined, undefined])
  })

  it('has those of the query, where the body is the payload', async () => {
    await start()
    const query = '?topic=t&contentType=image/png&userProperties=a%3D1%3D&userProperties=b=&responseTopic=r/1'
    const answer = await post(`${query}&correlationData=AP8%3D&expires=2030-01-01T00:00:00%2B01:00`, 'x', {
      'content-type': 'application/x-www-form-urlencoded',
    })
    expect(answer.status).toBe(201)
    expect(await newest()).toMatchObject({
      expires: Date.UTC(2029, 11, 31, 23),
      properties: {
        contentType: 'image/png',
        userProperties: [
          ['a', '1='],
          ['b', ''],
        ],
        responseTopic: 'r/1',
        correlationData: Buffer.from([0, 255]),
      },
    })
  })

  it('has no content type from the header, which clients set without being asked', async () => {
    await start()
    await post('?topic=t', 'x', { 'content-type': 'application/x-www-form-urlencoded' })
    expect((await newest()).properties).toBeUndefined()
  })

  const long = 'x'.repeat(65_536)
  it.each<readonly [object, string, unknown]>([
    [{ contentType: 'a\nb' }, 'contentType', 'must not hold control characters, or what is no character'],
    [{ contentType: long }, 'contentType', 'must have at most 65535 bytes'],
    [{ contentType: 1 }, 'contentType', 'must be a string'],
    [{ userProperties: 'a=b' }, 'userProperties', 'must be a list of [name, value], or an object'],
    [{ userProperties: [['a']] }, 'userProperties[0]', 'must be a list of a name and a value'],
    [{ userProperties: [['a', 1]] }, 'userProperties[0][1]', 'must be a string'],
    [{ userProperties: { a: { b: 'c' } } }, 'userProperties[0][1]', 'must be a string'],
    [
      { userProperties: [['\u0000', '']] },
      'userProperties[0][0]',
      'must not hold control characters, or what is no character',
    ],
    [
      { userProperties: Array.from({ length: 100 }, () => ['a', long.slice(0, 1000)]) },
      'userProperties',
      'must have at most 65536 bytes in all, with the other properties',
    ],
    [{ responseTopic: 'a/+' }, 'responseTopic', 'must be the name of one topic, without the wildcards + and #'],
    [{ responseTopic: '' }, 'responseTopic', 'must not be empty'],
    [{ correlationData: 'AP8' }, 'correlationData', 'must be base64 (RFC 4648 §4, with padding)'],
    [{ correlationData: Buffer.alloc(65_538).toString('base64') }, 'correlationData', 'must have at most 65535 bytes'],
    ...['0s', '-1s', '999ms', 'never', '2001-01-01T00:00:00Z', '2030-01-01', 7].map(
      expires => [{ expires }, 'expires', expect.stringContaining('must be a time from 1s on')] as const,
    ),
  ])('is refused with %o', async (members, parameter, problem) => {
    await start()
    const { status, body } = await json({ topic: 't', payload: 'x', ...members })
    expect(status).toBe(400)
    expect(body.parameter).toBe(parameter)
    expect(body.detail?.slice(parameter.length + 1)).toEqual(problem)
    expect(rig.journal.head).toBe(0)
  })

  it.each([
    ['=a', 201],
    ['a', 400],
    ['a%0Ab=c', 400],
  ])('takes or refuses userProperties=%s', async (text, status) => {
    await start()
    const answer = await post(`?topic=t&userProperties=${text}`, 'x')
    expect(answer.status).toBe(status)
    if (status === 400) expect(answer.body.parameter).toBe('userProperties')
  })

  it('is the same for an Idempotency-Key if it expires after the same time, and another with other properties', async () => {
    await start()
    vi.useFakeTimers({ toFake: ['Date'] })
    const key = { 'idempotency-key': 'k' }
    const message = { topic: 't', payload: 'x', expires: '30s', contentType: 'a' }
    expect((await json(message, key)).status).toBe(201)
    vi.setSystemTime(Date.now() + 1000)
    expect((await json(message, key)).status).toBe(201)
    expect(rig.journal.head).toBe(1)
    expect((await json({ ...message, expires: '31s' }, key)).status).toBe(422)
    expect((await json({ ...message, contentType: 'b' }, key)).status).toBe(422)
  })
})
