import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/base/errors.js'
import { type Event, formatId } from '../../../src/journal/event.js'
import { controlEvents, encodeCursor, streamEncoder, streamStart } from '../../../src/transports/sse/sse-encoding.js'
import { EventStreamParser } from '../../helpers/sse-parser.js'

const id = formatId('0lm3x9k2abcdefg', 7)
const event = (payload: Buffer, more: Partial<Event> = {}): Event => ({
  ...{ id, sequence: 7, topic: 'a', time: 0, payload, qos: 0, retained: false },
  ...more,
})

/** What a client gets that is handed these bytes, in pieces that end at these places. */
function parse(bytes: Buffer, cuts: readonly number[] = []): EventStreamParser {
  const parser = new EventStreamParser()
  const places = [...cuts.map(cut => cut % (bytes.length + 1)), 0, bytes.length].sort((a, b) => a - b)
  for (const [index, place] of places.entries()) parser.push(bytes.subarray(places[index - 1] ?? 0, place))
  return parser
}

/** What goes wrong where it does: ends of lines, fields, comments, NUL, BOM, what JavaScript takes for an end of line. */
const troubles = [
  '\r',
  '\n',
  '\r\n',
  '\0',
  '\ufeff',
  '\u2028',
  '\u2029',
  '\u0085',
  ' ',
  ':',
  'data: x',
  '\n\n',
  'id: 1\n',
  '😀',
  '"',
  '\\',
]
const text = fc
  .array(fc.oneof(fc.constantFrom(...troubles), fc.string({ unit: 'binary' })), { maxLength: 8 })
  .map(parts => parts.join(''))
const payloads = fc.oneof(
  text.map(Buffer.from),
  fc.uint8Array({ maxLength: 64 }).map(bytes => Buffer.from(bytes)),
)
const cuts = fc.array(fc.nat(10_000), { maxLength: 6 })

function isText(payload: Buffer): boolean {
  return Buffer.from(payload.toString()).equals(payload)
}

describe('what an event stream carries', () => {
  it('is any payload and any topic, in JSON', () => {
    fc.assert(
      fc.property(payloads, text, fc.boolean(), cuts, (payload, topic, json, places) => {
        const encode = streamEncoder({ enveloped: true, json })
        const { events, lastEventId } = parse(encode(event(payload, { topic })), places)
        expect(events).toHaveLength(1)
        const [{ type, data } = { type: '', data: '{}' }] = events
        const { payload: asText, payloadBase64, ...rest } = JSON.parse(data)
        const carried = asText === undefined ? Buffer.from(payloadBase64, 'base64') : Buffer.from(asText)
        expect(carried.equals(payload)).toBe(true)
        expect(asText === undefined).toBe(!isText(payload))
        expect([type, rest.topic, rest.id, lastEventId]).toEqual(['message', topic, id, id])
        // Some clients end lines there.
        expect(data).not.toMatch(/[\u0085\u2028\u2029]/)
      }),
      { numRuns: 1000 },
    )
  })

  it('is any payload, bare', () => {
    const encode = streamEncoder({ enveloped: false, json: false })
    fc.assert(
      fc.property(payloads, cuts, (payload, places) => {
        const { events, lastEventId } = parse(encode(event(payload)), places)
        expect(events).toHaveLength(1)
        const [{ type, data } = { type: '', data: '' }] = events
        const plain = isText(payload) && !payload.includes('\r')
        expect(type).toBe(plain ? 'message' : 'base64')
        expect(Buffer.from(data, plain ? 'utf8' : 'base64').equals(payload)).toBe(true)
        expect(lastEventId).toBe(id)
      }),
      { numRuns: 1000 },
    )
  })

  it('is what a payload of JSON says, where that is wanted', () => {
    const bytes = Buffer.from('{"a":[1,null]}')
    const told = (json: boolean, payload: Buffer) =>
      JSON.parse(parse(streamEncoder({ enveloped: true, json })(event(payload))).events[0]?.data ?? '')
    expect(told(true, bytes)).toMatchObject({ payload: '{"a":[1,null]}', json: { a: [1, null] } })
    expect(told(false, bytes)).not.toHaveProperty('json')
    expect(told(true, Buffer.from('{'))).not.toHaveProperty('json')
  })

  it('is shared by all of one form, and has no place for what is retained', () => {
    const forms = [
      { enveloped: true, json: false },
      { enveloped: true, json: true },
      { enveloped: false, json: false },
    ]
    for (const form of forms) {
      expect(streamEncoder(form)).toBe(streamEncoder({ ...form }))
      expect(parse(streamEncoder(form)(event(Buffer.from('x'), { retained: true }))).lastEventId).toBe('')
    }
  })
})

describe('what an event stream says of itself', () => {
  it('is one event each, whatever is in it', () => {
    const start = parse(Buffer.from(streamStart({ connection: 'c', device: 'kitchen\u2028é', heartbeat: 15 })))
    expect(start.events).toEqual([
      { type: 'welcome', data: '{"connection":"c","device":"kitchen\\u2028é","heartbeat":15}', lastEventId: '' },
    ])
    fc.assert(
      fc.property(text, cursor => {
        const gap = parse(controlEvents.gap({ reason: 'unknown', cursor, resumes: id })).events
        expect(gap.map(({ type, data }) => [type, JSON.parse(data)])).toEqual([
          ['gap', { reason: 'unknown', cursor, resumes: id }],
        ])
        const end = parse(controlEvents.end(new GatewayError('topic-refused', { hint: cursor }))).events
        expect(end.map(({ type }) => type)).toEqual(['end'])
      }),
    )
  })

  it('is its place in an event that has data, and a comment alone where there is none yet', () => {
    const { events, lastEventId } = parse(encodeCursor(id))
    expect([events, lastEventId]).toEqual([[{ type: 'live', data: `{"cursor":"${id}"}`, lastEventId: id }], id])
    fc.assert(
      fc.property(fc.option(text, { nil: undefined }), cursor => {
        const { events, lastEventId, comments, emptyBlocks } = parse(encodeCursor(cursor))
        expect({ events, lastEventId, comments, emptyBlocks }).toEqual({
          ...{ events: [], lastEventId: '', comments: 1, emptyBlocks: 0 },
        })
      }),
    )
  })
})
