import { describe, expect, it } from 'vitest'
import { decodeEvent, decodeRetainedEntry, encodeEvent, encodeRetainedEntry } from '../../src/journal/level-records.js'

const epoch = '0lz1x2y3z000000'
const plain = {
  id: `${epoch}-7`,
  sequence: 7,
  topic: 'a/ü',
  time: 1_700_000_000_000,
  payload: Buffer.from('hi'),
  qos: 1,
  retained: false,
} as const
/** As version 0.1.0 wrote it, before messages had properties. */
const earlier = Buffer.from('01401c0000000000004278bcfe56800000000400000002612fc3bc6869', 'hex')

describe('records of the journal', () => {
  it('are those of an earlier version where a message has no properties', () => {
    expect(encodeEvent(plain)).toEqual(earlier)
    expect(decodeEvent(epoch, earlier, false)).toEqual({ event: plain, large: undefined })
    const entry = Buffer.from('401c00000000000040180000000000', 'hex')
    const whole = Buffer.concat([entry, Buffer.from('00', 'hex')])
    expect(encodeRetainedEntry({ sequence: 7, size: 6 })).toEqual(whole)
    expect(decodeRetainedEntry(whole)).toEqual({ sequence: 7, size: 6 })
  })

  it.each([
    { properties: Buffer.from('p') },
    { expires: 1_800_000_000_000 },
    { properties: Buffer.from('properties'), expires: 1_800_000_000_000 },
  ])('have %o', extras => {
    const event = { ...plain, ...extras }
    const record = encodeEvent(event)
    expect(decodeEvent(epoch, record, false)).toEqual({ event, large: undefined })
    for (let length = 0; length < record.length; length++) {
      expect(() => decodeEvent(epoch, record.subarray(0, length), false)).toThrow('an event')
    }
    const large = { ...event, payload: Buffer.alloc(20_000) }
    const stored = decodeEvent(epoch, encodeEvent(large), false)
    expect(stored).toEqual({ event: { ...event, payload: Buffer.alloc(0) }, large: 20_000 })
  })
})
