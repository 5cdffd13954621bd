import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cursorOf, sequenceOf } from '../../src/compat/couchdb/positions.js'
import { rowEncoder, rowJson } from '../../src/compat/couchdb/rows.js'
import { type Event, formatId } from '../../src/journal/event.js'

const epoch = 'mi95vp7k1q3x8za'

const eventOf = (payload: string | Buffer, sequence = 5): Event => ({
  ...{ id: formatId(epoch, sequence), sequence, topic: 'notifications', time: 0, qos: 1, retained: false },
  payload: Buffer.from(payload),
})

const docOf = (payload: string | Buffer): Record<string, unknown> => JSON.parse(rowJson(eventOf(payload), true)).doc

describe('a row', () => {
  it('has the members that CouchDB’s have, and the topic', () => {
    expect(JSON.parse(rowJson(eventOf('hello'), true))).toEqual({
      seq: 5,
      id: `${epoch}-5`,
      changes: [{ rev: expect.stringMatching(/^1-[0-9a-f]{32}$/) }],
      topic: 'notifications',
      doc: { _id: `${epoch}-5`, _rev: expect.stringMatching(/^1-[0-9a-f]{32}$/), msg: 'hello' },
    })
  })

  it('has the revision of its document, and no document unless it is asked for', () => {
    const { changes, doc } = JSON.parse(rowJson(eventOf('x'), true))
    expect(changes).toEqual([{ rev: doc._rev }])
    expect(JSON.parse(rowJson(eventOf('x'), false))).not.toHaveProperty('doc')
  })

  it('is on one line, and valid JSON, whatever the payload', () => {
    const kinds = ['list', 'line', 'message'] as const
    const payloads = fc.oneof(fc.string({ unit: 'binary' }), fc.json(), fc.uint8Array())
    fc.assert(
      fc.property(payloads, fc.constantFrom(...kinds), fc.boolean(), (payload, kind, includeDocs) => {
        const event = eventOf(Buffer.from(payload as string))
        const text = rowEncoder(kind, includeDocs)(event).toString()
        const row = { list: /^,(.*)$/, line: /^(.*)\n$/, message: /^data: (.*)\nid: 5\n\n$/ }[kind]
        expect(JSON.parse(row.exec(text)?.[1] ?? '')).toEqual(JSON.parse(rowJson(event, includeDocs)))
      }),
    )
  })

  it('is no state that is told to somebody who comes later', () => {
    expect(rowEncoder('list', true)({ ...eventOf('x'), retained: true })).toHaveLength(0)
  })

  it('has no end of a line of Unicode, or of a script', () => {
    const text = rowEncoder('list', true)(eventOf('a\u2028b\u2029c\u0085')).toString()
    expect(text).not.toMatch(/[\u0085\u2028\u2029]/)
    expect(JSON.parse(text.slice(1)).doc.msg).toBe('a\u2028b\u2029c\u0085')
  })
})

describe('a document', () => {
  it('has the fields of a JSON object, but for those whose name begins with _', () => {
    const fields = fc.dictionary(
      fc.string().filter(name => name !== '__proto__'),
      fc.jsonValue(),
    )
    fc.assert(
      fc.property(fields, fields => {
        const { _id, _rev, ...rest } = docOf(JSON.stringify(fields))
        expect(_id).toBe(`${epoch}-5`)
        const kept = Object.entries(fields).filter(([name]) => !name.startsWith('_'))
        expect(rest).toEqual(JSON.parse(JSON.stringify(Object.fromEntries(kept))))
      }),
    )
  })

  it.each(['', 'hello', '5', '[1]', '"text"', 'null', 'true', '{"open":', 'a"b\\c\nd</script>😀'])(
    'has anything else as msg: %j',
    payload => {
      expect(docOf(payload)).toMatchObject({ msg: payload })
    },
  )

  it('takes no prototype from a payload', () => {
    const doc = docOf('{"__proto__":{"admin":true},"constructor":1,"toJSON":2}')
    expect(Object.keys(doc).sort()).toEqual(['_id', '_rev', 'constructor', 'toJSON'])
  })

  it('has bytes that are no UTF-8 in base64', () => {
    expect(docOf(Buffer.from([0xff, 0x00]))).toEqual({
      _id: `${epoch}-5`,
      _rev: expect.any(String),
      payloadBase64: '/wA=',
    })
  })

  it('has what is nested too deep to be written again as a text', () => {
    const payload = `{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}`
    expect(docOf(payload)['msg']).toBe(payload)
  })
})

describe('a place', () => {
  const journal = { epoch, first: 11, head: 20 }
  it.each([
    ['now', 20],
    [20, 20],
    [15, 15],
    [10, 10],
    [9, 10],
    [0, 10],
    // Of another journal, which had come farther.
    [21, 10],
  ] as const)('%s is %i where the changes from 11 to 20 are there', (since, sequence) => {
    expect(sequenceOf(cursorOf(journal, since))).toBe(sequence)
  })

  it('without any event is the start', () => {
    expect(sequenceOf(cursorOf({ epoch, first: 1, head: 0 }, 57))).toBe(0)
    expect(sequenceOf(cursorOf({ epoch, first: 1, head: 0 }, 'now'))).toBe(0)
  })
})
