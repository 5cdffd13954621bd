import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  EventReader,
  type ListenerEvent,
  ProtocolError,
  parsePairs,
} from '../../../src/integrations/supervisord/event-reader.js'

/** An event as supervisord on Python 3 writes it, which counts characters. */
function written(eventname: string, body: string, serial = 1): Buffer {
  const line = `ver:3.0 server:supervisor serial:${serial} pool:mqway poolserial:${serial} eventname:${eventname} len:${[...body].length}`
  return Buffer.from(`${line}\n${body}`)
}

/** What a reader makes of a stream that comes in pieces. */
function read(stream: Buffer, cuts: readonly number[] = []): ListenerEvent[] {
  const reader = new EventReader()
  const places = [...new Set([0, ...cuts.map(cut => cut % (stream.length + 1)), stream.length])].sort((a, b) => a - b)
  return places.flatMap((place, index) => reader.push(stream.subarray(place, places[index + 1])))
}

const awkward = ['"quotes"', 'back\\slash', 'line\nbreak\r\n', '😀', '</script>', '\u0000\u001f', 'é', '一', '']

describe('the reader of supervisord’s events', () => {
  it('reads what was written, however it is cut', () => {
    const bodies = fc.array(fc.oneof(fc.constantFrom(...awkward), fc.string({ unit: 'grapheme' })), { maxLength: 5 })
    fc.assert(
      fc.property(bodies, fc.array(fc.nat()), (texts, cuts) => {
        const stream = Buffer.concat(texts.map((text, index) => written('PROCESS_LOG_STDOUT', text, index)))
        const events = read(stream, cuts)
        expect(events.map(({ body }) => body)).toEqual(texts)
        expect(events.map(({ header }) => header.get('serial'))).toEqual(texts.map((_, index) => String(index)))
      }),
    )
  })

  it('passes over a body that is larger than anybody wants, and keeps nothing of it', () => {
    const stream = Buffer.concat([written('PROCESS_LOG_STDOUT', '😀'.repeat(262_144)), written('TICK_5', 'when:1')])
    const events = read(stream, [10, 70_000, 500_001])
    expect(events.map(({ eventname, body }) => [eventname, body])).toEqual([
      ['PROCESS_LOG_STDOUT', undefined],
      ['TICK_5', 'when:1'],
    ])
  })

  it('takes bytes that are no UTF-8', () => {
    const [event] = read(Buffer.from('eventname:X len:3\n\xff\xfe\xfd', 'latin1'))
    expect(event?.body).toBe('\ufffd\ufffd\ufffd')
  })

  it.each([
    ['no event', 'hello\n'],
    ['an event without a length', 'eventname:TICK_5\n'],
    ['a length below zero', 'eventname:TICK_5 len:-1\n'],
    ['a length in words', 'eventname:TICK_5 len:many\n'],
    ['a length without a bound', `eventname:TICK_5 len:${'9'.repeat(30)}\n`],
    ['a line without an end', 'x'.repeat(9000)],
  ])('does not go on after %s', (_, text) => {
    expect(() => read(Buffer.from(text))).toThrow(ProtocolError)
  })

  it('never does anything else than read or refuse, whatever comes', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.uint8Array(), fc.constant(written('A', 'b:c')))), chunks => {
        const reader = new EventReader()
        try {
          for (const chunk of chunks) reader.push(Buffer.from(chunk))
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError)
        }
      }),
    )
  })
})

it('takes values apart that have colons and spaces in them', () => {
  expect([...parsePairs('server:my host serial:2 pool:a:b')]).toEqual([
    ['server', 'my host'],
    ['serial', '2'],
    ['pool', 'a:b'],
  ])
})
