import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createStreamReader } from '../../src/client/sse.js'

it('reads type, data over several lines, and id', () => {
  const read = createStreamReader()
  expect(read(': hello\nretry: 2000\nevent: gap\ndata: one\ndata:two\ndata:\nid: 7\n\n')).toEqual([
    expect.objectContaining({ event: 'gap', data: 'one\ntwo\n', id: '7' }),
  ])
})

it('gives a block that only moves the id', () => {
  expect(createStreamReader()(':\nid: abc-4\n\n')).toEqual([expect.objectContaining({ id: 'abc-4' })])
  expect(createStreamReader()('id: abc-4\n\n')[0]).not.toHaveProperty('data')
})

it('gives nothing of a block that has not ended', () => {
  const read = createStreamReader()
  expect(read('data: one\n')).toEqual([])
  expect(read('\ndata')).toEqual([{ data: 'one' }])
})

it('reads the same from any pieces, with any line ends', () => {
  const line = fc.string({ unit: fc.constantFrom('a', ' ', ':', '"', '\u2028', 'é'), maxLength: 12 })
  const stream = fc.array(line, { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(stream, fc.constantFrom('\n', '\r\n'), fc.array(fc.nat(200)), (payloads, end, cuts) => {
      const text = payloads.map((payload, id) => `data: ${payload}${end}id: ${id}${end}${end}`).join('')
      const places = [0, ...cuts.map(cut => Math.min(cut, text.length)).sort((a, b) => a - b), text.length]
      const read = createStreamReader()
      const blocks = places.slice(1).flatMap((place, index) => read(text.slice(places[index], place)))
      expect(blocks).toEqual(payloads.map((data, id) => ({ data, id: String(id) })))
    }),
  )
})
