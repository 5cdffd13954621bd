import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatId, newEpoch, parseId } from '../../src/journal/event.js'

describe('an event id', () => {
  const epoch = newEpoch(Date.UTC(2024, 0, 1))

  it('is read back as it was written, in any epoch, at any place', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 46 }), fc.nat({ max: Number.MAX_SAFE_INTEGER }), (time, sequence) => {
        const id = { epoch: newEpoch(time), sequence }
        expect(parseId(formatId(id.epoch, sequence))).toEqual(id)
      }),
    )
  })

  it.each([
    '',
    '-',
    '-1',
    epoch,
    `${epoch}-`,
    `${epoch}--1`,
    `${epoch}-01`,
    `${epoch}-1.5`,
    `${epoch}-1e3`,
    `${epoch}-0x1`,
    `${epoch}-1 `,
    ` ${epoch}-1`,
    `${epoch}-1\n`,
    `${epoch}-9007199254740992`,
    `${epoch}-${'9'.repeat(400)}`,
    `${epoch}x-1`,
    `${epoch.slice(1)}-1`,
    `${epoch.toUpperCase()}-1`,
    '2024-01-01T00:00:00.000Z',
    '١'.repeat(15).concat('-1'),
  ])('is not %j', text => expect(parseId(text)).toBeUndefined())

  it('is never a text that would be written in another way', () => {
    fc.assert(
      fc.property(fc.string(), text => {
        const id = parseId(text)
        expect(id === undefined || formatId(id.epoch, id.sequence) === text).toBe(true)
      }),
    )
  })

  it('has an epoch that differs in the same millisecond, and sorts after those of the past', () => {
    const epochs = new Set(Array.from({ length: 1000 }, () => newEpoch(1_700_000_000_000)))
    expect(epochs.size).toBe(1000)
    expect(newEpoch(1_700_000_000_001) > newEpoch(1_700_000_000_000)).toBe(true)
    expect(newEpoch(-1)).toHaveLength(15)
  })
})
