import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/config/units.js'

test.each([
  ['500ms', 500],
  ['30s', 30_000],
  ['1.5m', 90_000],
  ['2h', 7_200_000],
  ['1d', 86_400_000],
  ['24d', 2_073_600_000],
])('%s is %i ms', (text, milliseconds) => {
  expect(parseDuration(text)).toBe(milliseconds)
})

test.each(['', '30', 's', '-1s', '1 s', '1e3s', '25d', '1w', 'constructor'])('%j is no duration', text => {
  expect(parseDuration(text)).toBeUndefined()
})

test.each([
  ['512B', 512],
  ['64KiB', 65_536],
  ['1.5MiB', 1_572_864],
  ['1GB', 1e9],
])('%s is %i bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes)
})

test.each(['', '64', '64K', '64kib', '-1B', '99999999GiB'])('%j is no size', text => {
  expect(parseSize(text)).toBeUndefined()
})

test('what is written is read back as the same amount', () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 31 - 1 }), ms => parseDuration(formatDuration(ms)) === ms))
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 40 }), bytes => parseSize(formatSize(bytes)) === bytes))
})
