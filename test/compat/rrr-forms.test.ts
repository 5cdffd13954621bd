import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { contentOf, responseBody } from '../../src/compat/rrr/response.js'
import { recordEncoder, recordsIn } from '../../src/compat/rrr/socket-records.js'
import { topicOf } from '../../src/compat/rrr/socket-topic.js'
import type { Event } from '../../src/journal/event.js'

const payloads = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)),
  fc.string({ unit: 'binary', maxLength: 100 }).map(text => Buffer.from(text)),
)
const eventOf = (payload: Buffer, topic: string): Event => {
  return { id: '', sequence: 1, topic, time: 0, payload, qos: 0, retained: false }
}

describe('what RRR’s clients get', () => {
  it('is JSON that says the payload and the handle, whatever they are', () => {
    fc.assert(
      fc.property(payloads, fc.string({ unit: 'binary', minLength: 1 }), fc.nat(), (payload, handle, id) => {
        const answer = JSON.parse(responseBody(contentOf({ payload }), handle, id).toString())
        expect(String(answer.handle)).toBe(Buffer.from(handle).toString())
        expect(answer.id).toBe(id)
        expect(Buffer.from(answer.content, answer.encoding ?? 'utf8')).toEqual(payload)
      }),
    )
  })

  it('is, over a WebSocket, each event’s topic, payload and frame, however many come together', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(payloads, fc.string({ unit: 'grapheme' }))), fc.boolean(), (events, binary) => {
        const encode = recordEncoder(binary)
        const data = Buffer.concat(events.map(([payload, topic]) => encode(eventOf(payload, topic))))
        const records = [...recordsIn(data)]
        expect(records.map(({ topic }) => topic)).toEqual(events.map(([, topic]) => topic))
        for (const [index, record] of records.entries()) {
          const { frame } = record
          const payload = events[index]?.[0] ?? Buffer.alloc(0)
          const isText = Buffer.from(payload.toString()).equals(payload)
          if (isText || binary) expect(record.payload).toEqual(payload)
          if (!isText && !binary) expect(frame).toHaveLength(0)
          else
            expect([frame[0], frame.subarray(-payload.length || frame.length)]).toEqual([isText ? 0x81 : 0x82, payload])
        }
      }),
    )
  })

  it('is of the topic that the path names', () => {
    const options = { prefix: '/rrr', bounds: { topicLevels: 100, topicLength: 65_535 }, isOpen: () => true }
    const topics = fc.string({ unit: 'grapheme', minLength: 1 }).filter(topic => !/[+#\0]/.test(topic))
    fc.assert(
      fc.property(topics, topic => {
        expect(topicOf(`/rrr/${encodeURIComponent(topic)}?x=y`, options)).toBe(topic)
        expect(topicOf(`/${encodeURIComponent(topic)}`, { ...options, prefix: '/' })).toBe(topic)
      }),
    )
  })
})
