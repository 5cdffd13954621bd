import { describe, expect, it } from 'vitest'
import { IdempotencyKeys } from '../../src/transports/idempotency.js'

function keysOf(bounds: { maxAge?: number; maxKeys?: number; maxBytes?: number }) {
  let now = 0
  const keys = new IdempotencyKeys({ maxAge: 1000, maxKeys: 100, maxBytes: 1_000_000, ...bounds }, () => now)
  const answer = (key: string, ids = 1, owner = key): void => {
    const request = keys.begin(owner, key, 'f')
    for (let id = 0; id < ids; id++) request.progress.ids.push(`id-${id}`)
    request.progress.done = true
    request.end()
  }
  const pass = (milliseconds: number): void => {
    now += milliseconds
  }
  return { keys, answer, pass }
}

/** Whether a key is remembered. */
function knows(keys: IdempotencyKeys, key: string, owner = key): boolean {
  const request = keys.begin(owner, key, 'f')
  const { done } = request.progress
  request.end()
  return done
}

describe('keys of requests', () => {
  it('are remembered for a while after the last request with them', () => {
    const { keys, answer, pass } = keysOf({})
    answer('a')
    pass(900)
    expect(knows(keys, 'a')).toBe(true)
    pass(900)
    expect(knows(keys, 'a')).toBe(true)
    pass(1001)
    expect(knows(keys, 'a')).toBe(false)
    expect(keys.size).toBe(0)
  })

  it('are forgotten, the oldest first, when there are too many', () => {
    const { keys, answer } = keysOf({ maxKeys: 3 })
    for (const key of ['a', 'b', 'c', 'd', 'e']) answer(key)
    expect(keys.size).toBe(3)
    expect(['a', 'b', 'c', 'd', 'e'].map(key => knows(keys, key))).toEqual([false, false, true, true, true])
  })

  it('are forgotten when they take too many bytes', () => {
    const { keys, answer } = keysOf({ maxBytes: 100_000 })
    for (let key = 0; key < 10; key++) answer(String(key), 1000)
    expect([keys.size, knows(keys, '9'), knows(keys, '7')]).toEqual([2, true, false])
  })

  it('of one owner are half of them at most, and take nobody else’s place', () => {
    const { keys, answer } = keysOf({ maxKeys: 10 })
    for (const key of ['a', 'b', 'c', 'd']) answer(key)
    for (let key = 0; key < 100; key++) answer(`many-${key}`, 1, 'one')
    expect(keys.size).toBe(9)
    expect(['a', 'b', 'c', 'd'].map(key => knows(keys, key))).toEqual([true, true, true, true])
    expect([94, 95, 99].map(key => knows(keys, `many-${key}`, 'one'))).toEqual([false, true, true])
    expect(knows(keys, 'a', 'one')).toBe(false)
  })

  it('of somebody with few stay, however many others take what they can get', () => {
    const { keys, answer } = keysOf({ maxKeys: 10 })
    answer('a')
    for (const owner of ['one', 'two', 'three']) for (let key = 0; key < 100; key++) answer(`${key}`, 1, owner)
    expect([keys.size, knows(keys, 'a')]).toEqual([10, true])
  })

  it('of one owner take half of the bytes at most', () => {
    const { keys, answer } = keysOf({ maxBytes: 200_000 })
    answer('a')
    for (let key = 0; key < 10; key++) answer(String(key), 1000, 'one')
    expect([keys.size, knows(keys, 'a'), knows(keys, '8', 'one')]).toEqual([3, true, true])
  })

  it('stay while their request is being answered, however many come', () => {
    const { keys, answer, pass } = keysOf({ maxKeys: 2 })
    const slow = keys.begin('somebody', 'slow', 'f')
    pass(5000)
    for (let key = 0; key < 10; key++) answer(String(key))
    expect(() => keys.begin('somebody', 'slow', 'f')).toThrow(expect.objectContaining({ reason: 'idempotency-busy' }))
    expect(() => keys.begin('somebody', 'slow', 'other')).toThrow(
      expect.objectContaining({ reason: 'idempotency-mismatch' }),
    )
    slow.end()
    slow.end()
    expect(knows(keys, 'slow', 'somebody')).toBe(false)
  })
})
