import { expect, it } from 'vitest'
import type { Transport } from '../../src/client/api.js'
import { createTransportFallback } from '../../src/client/transport-fallback.js'

const all: Transport[] = ['socket', 'sse', 'poll']

it('tries the best first, and all of them in a round', () => {
  const ladder = createTransportFallback(all)
  expect(ladder.current()).toBe('socket')
  expect(ladder.failed()).toBe(true)
  expect(ladder.current()).toBe('sse')
  expect(ladder.failed()).toBe(true)
  expect(ladder.current()).toBe('poll')
  expect(ladder.failed()).toBe(false)
  expect(ladder.current()).toBe('socket')
})

it('begins with what has worked before, here or on an earlier page', () => {
  const ladder = createTransportFallback(all, 'poll')
  expect(ladder.current()).toBe('poll')
  expect(ladder.failed()).toBe(true)
  expect(ladder.current()).toBe('socket')
  ladder.worked('sse')
  expect(ladder.current()).toBe('sse')
  expect(createTransportFallback(all, 'pigeon').current()).toBe('socket')
  expect(createTransportFallback(['poll'], 'socket').current()).toBe('poll')
})

it('tries one that has worked alone for two rounds, before the others', () => {
  const ladder = createTransportFallback(all)
  ladder.worked('socket')
  expect([ladder.failed(), ladder.current()]).toEqual([false, 'socket'])
  expect([ladder.failed(), ladder.current()]).toEqual([false, 'socket'])
  expect([ladder.failed(), ladder.current()]).toEqual([true, 'sse'])
})

it('moves on at once from one that got through and fell silent', () => {
  const ladder = createTransportFallback(all)
  ladder.worked('sse')
  expect([ladder.failed(true), ladder.current()]).toEqual([true, 'poll'])
})
