import { describe, expect, it } from 'vitest'
import { formatId } from '../../src/journal/event.js'
import { eventJson } from '../../src/transports/event-json.js'

describe('an event as JSON', () => {
  const written = (payload: string): { payload?: string; json?: unknown } => {
    const event = {
      id: formatId('mi95vp7k1q3x8za', 1),
      sequence: 1,
      topic: 'a',
      time: 0,
      qos: 1,
      retained: false,
    } as const
    return JSON.parse(eventJson({ ...event, payload: Buffer.from(payload) }, { json: true }))
  }

  it('has what a payload says that is JSON, and of any other the text alone', () => {
    expect(written('{"a":1}')).toMatchObject({ payload: '{"a":1}', json: { a: 1 } })
    expect(written('{"a":')).not.toHaveProperty('json')
  })

  it('has the text of JSON that is nested too deep to be written again', () => {
    const payload = '['.repeat(200_000) + ']'.repeat(200_000)
    expect(written(payload)).toMatchObject({ payload })
    expect(written(payload)).not.toHaveProperty('json')
  })
})
