import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { backoff } from '../../src/push/session/backoff.js'
import { makeClientId } from '../../src/push/session/client-id.js'
import { Echoes } from '../../src/push/session/echoes.js'

describe('the wait before the next attempt', () => {
  it('is short at first, never over 30 s, and at random no less than half', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e6 }), fc.double({ min: 0, max: 1, noNaN: true }), (attempts, random) => {
        const wait = backoff(attempts, random)
        expect(wait).toBeGreaterThanOrEqual(100)
        expect(wait).toBeLessThanOrEqual(30_000)
        expect(wait).toBeGreaterThanOrEqual(backoff(attempts, 0) / 2)
      }),
    )
    expect([1, 2, 3, 7, 8].map(attempts => backoff(attempts, 0))).toEqual([200, 1000, 2000, 30_000, 30_000])
  })
})

describe('the client id', () => {
  it('is the same for the same data, and another for other data, and without', () => {
    expect(makeClientId('/a')).toBe(makeClientId('/a'))
    expect(makeClientId('/a')).not.toBe(makeClientId('/b'))
    expect(makeClientId(undefined)).not.toBe(makeClientId(undefined))
    expect(makeClientId('/a')).toMatch(/^mqway-[0-9a-zA-Z-]*-[0-9a-f]{10}$/)
  })
})

describe('publications under way', () => {
  const message = (payload: string, retain = false) =>
    ({ topic: 't', payload: Buffer.from(payload), qos: 1, retain }) as const

  it('are taken in order, by payload and RETAIN', () => {
    const echoes = new Echoes({ maxCount: 10, maxBytes: 1000, timeout: 10_000 })
    const [first, second, retained] = [message('a'), message('a'), message('a', true)].map(m => echoes.expect(m))
    expect(echoes.take(message('b'), true)).toBeUndefined()
    expect(echoes.take(message('a', true), true)).toBe(retained)
    expect(echoes.take(message('a'), true)).toBe(first)
    expect(echoes.take(message('a', true), true)).toBeUndefined()
    expect(echoes.take(message('a', true), false)).toBe(second)
    for (const echo of [first, second, retained]) echo?.fail(new Error('the end'))
  })

  it('are bounded in number and bytes', () => {
    const echoes = new Echoes({ maxCount: 2, maxBytes: 100, timeout: 10_000 })
    const large = echoes.expect(message('x'.repeat(500)))
    expect(() => echoes.expect(message('a'))).toThrow(expect.objectContaining({ reason: 'broker-away' }))
    large.fail(new Error('the end'))
    const both = [echoes.expect(message('a')), echoes.expect(message('b'))]
    expect(() => echoes.expect(message('c'))).toThrow(expect.objectContaining({ reason: 'broker-away' }))
    for (const echo of both) echo.fail(new Error('the end'))
  })

  it('fail when their time is over, and are taken for nothing afterwards', async () => {
    const echoes = new Echoes({ maxCount: 2, maxBytes: 100, timeout: 5 })
    await expect(echoes.expect(message('a')).event).rejects.toMatchObject({ reason: 'publish-timeout' })
    expect(echoes.take(message('a'), true)).toBeUndefined()
  })
})
