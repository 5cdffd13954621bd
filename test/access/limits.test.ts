import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ConnectionLimits } from '../../src/access/limits.js'
import { GatewayError } from '../../src/base/errors.js'

function reasonOf(work: () => unknown): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return error instanceof GatewayError ? error.reason : 'no ending'
  }
}

describe('the limits', () => {
  it('admit as many as there may be in all, and one more for each that is released', () => {
    const limits = new ConnectionLimits({ connections: 2, connectionsPerAddress: 2 })
    const release = limits.admit('192.0.2.1')
    limits.admit('192.0.2.2')
    expect(reasonOf(() => limits.admit('192.0.2.3'))).toBe('too-many-connections')
    release()
    release()
    expect(limits.open).toBe(1)
    limits.admit('192.0.2.3')
    expect(reasonOf(() => limits.admit('192.0.2.4'))).toBe('too-many-connections')
  })

  it.each([
    ['192.0.2.1', '192.0.2.1', true],
    ['192.0.2.1', '::ffff:192.0.2.1', true],
    ['192.0.2.1', '::ffff:c000:201', true],
    ['192.0.2.1', '192.0.2.2', false],
    ['2001:db8:0:1::1', '2001:db8:0:1:ffff::2', true],
    ['2001:DB8:0:1::1', '2001:0db8::1:0:0:0:9', true],
    ['2001:db8:0:1::1', '2001:db8:0:2::1', false],
    ['::1', '::2', true],
    ['fe80::1%eth0', 'fe80::2%eth1', true],
    ['unix', 'unix', false],
  ])('count %s and %s as one address: %s', (first, second, same) => {
    const limits = new ConnectionLimits({ connections: 10, connectionsPerAddress: 1 })
    limits.admit(first)
    expect(reasonOf(() => limits.admit(second))).toBe(same ? 'too-many-from-address' : undefined)
  })

  it('leave room for others, however many addresses take what they can get', () => {
    const limits = new ConnectionLimits({ connections: 1000, connectionsPerAddress: 200 })
    for (let address = 0; address < 5; address++) {
      for (let left = 200; left > 0; left--) reasonOf(() => limits.admit(`192.0.2.${address}`))
    }
    expect(limits.open).toBe(900)
    for (let left = 16; left > 0; left--) expect(reasonOf(() => limits.admit('192.0.2.99'))).toBeUndefined()
  })

  it('count what is open, and remember nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(3))), steps => {
        const limits = new ConnectionLimits({ connections: 20, connectionsPerAddress: 3 })
        const open: (() => void)[] = []
        for (const [address, releases] of steps) {
          if (reasonOf(() => open.push(limits.admit(address))) === undefined) expect(limits.open).toBe(open.length)
          for (const release of open.splice(0, releases)) release()
          expect(limits.open).toBe(open.length)
          expect(limits.addresses).toBeLessThanOrEqual(open.length)
        }
        for (const release of open) release()
        expect([limits.open, limits.addresses]).toEqual([0, 0])
      }),
    )
  })
})

describe('new connections per second', () => {
  it('are so many at once from one network, and then so many per second', () => {
    let now = 0
    const limits = new ConnectionLimits({
      connections: 1000,
      connectionsPerAddress: 1000,
      upgradesPerSecond: 2,
      upgradesBurst: 5,
      now: () => now,
    })
    const admitted = (address: string, times = 20): number => {
      let count = 0
      for (let i = 0; i < times; i++) {
        try {
          limits.admit(address)
          count++
        } catch (error) {
          expect(error).toMatchObject({ reason: 'connecting-too-fast', retryAfter: 1 })
        }
      }
      return count
    }
    expect([admitted('192.0.2.1'), admitted('2001:db8::1', 3), admitted('2001:db8::2')]).toEqual([5, 3, 2])
    for (let i = 0; i < 10; i++) {
      now += 500
      expect(admitted('192.0.2.1')).toBe(1)
    }
    now += 60_000
    expect(admitted('192.0.2.1')).toBe(5)
    // A reverse proxy on a Unix socket is many people.
    expect(admitted('unix')).toBe(20)
  })
})
