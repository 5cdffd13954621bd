import * as fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { OpenFeeds, Publishers } from '../../src/compat/pere/context.js'
import { encodeEvent, encodePlace, feedStart } from '../../src/compat/pere/frames.js'
import { eventView, formatJson } from '../../src/compat/pere/views.js'
import { registerPere } from '../../src/compat/pere.js'
import type { Event } from '../../src/journal/event.js'
import type { Receipt, Receipts } from '../../src/receipts/receipts.js'
import { retryLine } from '../../src/transports/sse/stream-format.js'
import { type Dispatched, EventStreamParser } from '../helpers/sse-parser.js'
import { noReceipts, startRig } from '../transports/rig.js'

const id = 'mi95vp7k1q3x8za-1'

const eventOf = (payload: Buffer | string): Event => ({
  ...{ id, sequence: 1, topic: 'CHANNEL_1', time: 0, qos: 1, retained: false },
  payload: Buffer.from(payload),
})

function parse(stream: Buffer | string): Dispatched[] {
  const parser = new EventStreamParser()
  parser.push(Buffer.from(stream))
  return parser.events
}

describe('a frame of a feed', () => {
  it('is any text, but for the kind of its line breaks', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.oneof(fc.constantFrom('\n', '\r', ':', ' '), fc.string({ maxLength: 2 })) }),
        text => {
          const [message, ...more] = parse(encodeEvent(eventOf(text)))
          expect(more).toEqual([])
          expect(message).toEqual({
            type: 'message',
            data: Buffer.from(text)
              .toString()
              .replaceAll(/\r\n|\r/g, '\n'),
            lastEventId: id,
          })
        },
      ),
    )
  })

  it('is any JSON with the same meaning, however it is written', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom('\n', '\r\n', '\r'), (value, lineBreak) => {
        const body = JSON.stringify(value, null, 2).replaceAll('\n', lineBreak)
        const [message] = parse(encodeEvent(eventOf(body)))
        expect(JSON.parse(message?.data ?? '')).toEqual(JSON.parse(body))
      }),
    )
  })

  it('is bytes that are no text as base64, under a name', () => {
    const bytes = Buffer.from([0xc3, 0x28, 0x0a])
    expect(parse(encodeEvent(eventOf(bytes)))).toEqual([
      { type: 'base64', data: bytes.toString('base64'), lastEventId: id },
    ])
  })

  it('has a client come back after a second at the soonest', () => {
    for (const text of [feedStart('H1'), retryLine(0), retryLine(0.2), retryLine(10)]) {
      expect(Number(/^retry: (\d+)$/m.exec(text)?.[1])).toBeGreaterThanOrEqual(1000)
    }
  })

  it('has no place that is none: what a client came with may have line breaks in it', () => {
    for (const cursor of [undefined, 'x', 'x\n\ndata: y\n\n', '2014-12-01T15:01:45.025Z']) {
      expect(encodePlace(cursor).toString()).toBe(':\n\n')
    }
    expect(encodePlace(id).toString()).toBe(`event: live\ndata: {"cursor":"${id}"}\nid: ${id}\n\n`)
  })
})

describe('an event as an administrator sees it', () => {
  it('has the members of its body, whatever they are called, behind those that PERE shows', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), members => {
        const body: object = JSON.parse(JSON.stringify(members))
        const view = eventView(eventOf(JSON.stringify(body)), 'P1')
        expect(view).toEqual({ device: 'P1', time: '1970-01-01T00:00:00.000Z', id, ...body })
        // Of an object's members, those that are numbers come first in any case.
        expect(
          Object.keys(view)
            .filter(name => !/^\d+$/.test(name))
            .slice(0, 3),
        ).toEqual(['device', 'time', 'id'])
      }),
    )
  })

  it('shows a channel only where it is another one than that of the event', () => {
    expect(eventView(eventOf('{"channel":"CHANNEL_1"}'), 'P1')).not.toHaveProperty('channel')
    expect(eventView(eventOf('{"channel":"CHANNEL_2"}'), 'P1')).toHaveProperty('channel', 'CHANNEL_2')
  })

  it.each([
    { what: 'a number', body: '1', data: 1 },
    { what: 'a list', body: '[1,{"a":2}]', data: [1, { a: 2 }] },
    { what: 'null', body: 'null', data: null },
    { what: 'a text', body: 'on', data: 'on' },
    { what: 'nothing', body: '', data: '' },
    { what: 'what is nested too deeply', body: '['.repeat(100_000) + ']'.repeat(100_000), data: expect.any(String) },
  ])('is $what under data', ({ body, data }) => {
    expect(eventView(eventOf(body), undefined)).toMatchObject({ device: null, data })
  })
})

describe('what administrators are shown', () => {
  it('is JSON, laid out down to a level', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(3), (value, levels) => {
        expect(JSON.parse(formatJson(value, levels))).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
    expect(formatJson({ a: [], b: {}, c: [{ d: [1, 2] }] }, 2)).toBe(
      '{\n  "a":[],\n  "b":{},\n  "c":[\n    {"d":[1,2]}\n  ]\n}',
    )
  })

  it('takes no more room than its bodies, however deep they are', () => {
    const deep = JSON.parse(`${'[1,'.repeat(1000)}1${']'.repeat(1000)}`)
    expect(formatJson([{ data: deep }], 2).length).toBeLessThan(5000)
  })
})

describe('the list of devices', () => {
  it('has the feedback to the newest events, and looks at ten thousand of them', async () => {
    let looked = 0
    const report: Receipts['report'] = async (id, { limit = 0 } = {}) => {
      const length = Math.min(limit, 4000)
      looked += length
      const receiptOf = (_: unknown, at: number): Receipt => ({ device: `${id}-${at}`, status: 'processed', time: 1 })
      const receipts = Array.from({ length }, receiptOf)
      return { event: { id, topic: 'c', time: 0 }, requested: undefined, written: [], receipts }
    }
    const receipts = { ...noReceipts, report }
    const rig = await startRig({
      register: (app, options) => registerPere(app, { ...options, prefix: '/pere' }),
      parts: { receipts },
    })
    onTestFinished(() => rig.close())
    const ids: string[] = []
    for (const text of ['1', '2', '3', '4', '5']) ids.push((await rig.publish('c', text)).id)
    const devices = Object.keys((await (await fetch(`${rig.url}/pere/admin/devices/c`)).json()) as object)
    expect(looked).toBe(10_000)
    const count = (id: string): number => devices.filter(device => device.startsWith(`${id}-`)).length
    expect(ids.map(count)).toEqual([0, 0, 2000, 4000, 4000])
  })
})

describe('what is kept', () => {
  it('of feeds is nothing when they have ended', () => {
    const feeds = new OpenFeeds()
    const feed = { channel: 'CHANNEL_1', device: 'H1', at: 0, lastEventId: '' }
    const ends = [feeds.add(feed), feeds.add({ ...feed }), feeds.add({ ...feed, channel: 'CHANNEL_2' })]
    expect([...feeds.counts()]).toEqual([
      ['CHANNEL_1', 2],
      ['CHANNEL_2', 1],
    ])
    ends[0]?.()
    ends[0]?.()
    expect([...feeds.on('CHANNEL_1')]).toHaveLength(1)
    for (const end of ends) end()
    expect([...feeds.counts()]).toEqual([])
    const again = feeds.add(feed)
    ends[0]?.()
    expect([...feeds.on('CHANNEL_1')]).toEqual([feed])
    again()
  })

  it('of who published is about the newest ten thousand events', () => {
    const publishers = new Publishers()
    for (let event = 0; event < 10_001; event++) publishers.note(String(event), 'P1')
    expect([publishers.of('0'), publishers.of('1'), publishers.of('10000')]).toEqual([undefined, 'P1', 'P1'])
  })
})
