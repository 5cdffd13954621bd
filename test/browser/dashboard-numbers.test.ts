import { expect, it } from 'vitest'
import { byLabel, bytes, count, duration, perSecond, rate, sum } from '../../public/dashboard-numbers.js'

it('writes numbers with few digits, and times with two units', () => {
  expect([0, 999.6, 1_234_567].map(count)).toEqual(['0', '1,000', '1,234,567'])
  expect([0, 0.004, 0.25, 3.14, 271.8].map(rate)).toEqual(['0', '< 0.01', '0.25', '3.1', '272'])
  expect([0, 1023, 1536, 2 ** 20 * 250, 2 ** 50].map(bytes)).toEqual([
    '0 B',
    '1,023 B',
    '1.5 KiB',
    '250 MiB',
    '1,024 TiB',
  ])
  expect([-3, 59, 61, 3600, 3661, 86_400, 100_000].map(duration)).toEqual([
    '0 s',
    '59 s',
    '1 min',
    '1 h',
    '1 h 1 min',
    '1 d',
    '1 d 3 h',
  ])
})

it('takes a counter that has fallen for one that begins again', () => {
  expect([perSecond(30, 10, 2), perSecond(3, 10, 2), perSecond(3, 3, 0)]).toEqual([10, 0, 0])
})

it('finds the series of a metric, and not of one whose name only begins with it', () => {
  const metrics = {
    'a_total{transport="tcp",direction="in"}': 1,
    'a_total{transport="tls",direction="in"}': 2,
    'a_total{transport="tls",direction="out"}': 4,
    a_total_more: 8,
    b: 16,
  }
  expect(sum(metrics, 'a_total')).toBe(7)
  expect(sum(metrics, 'a_total', '"in"')).toBe(3)
  expect(sum(metrics, 'b')).toBe(16)
  expect([...byLabel(metrics, 'a_total', 'transport')]).toEqual([
    ['tcp', 1],
    ['tls', 6],
  ])
})
