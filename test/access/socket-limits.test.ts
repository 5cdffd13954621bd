import { describe, expect, it } from 'vitest'
import { SocketLimits } from '../../src/access/socket-limits.js'

const limits = (trustedProxies: readonly string[] = []): SocketLimits =>
  new SocketLimits({ perAddress: 2, trustedProxies })

/** The network of a socket that may stay; `undefined` for one that may not. */
function admit(some: SocketLimits, address: string | undefined): string | undefined {
  const admitted = some.admit(address)
  return 'network' in admitted ? admitted.network : undefined
}

describe('sockets of one address', () => {
  it('may be so many; each that closes makes room for one', () => {
    const some = limits()
    const first = admit(some, '192.0.2.1')
    expect([admit(some, '192.0.2.1'), admit(some, '192.0.2.1'), admit(some, '192.0.2.2')]).toEqual([
      '192.0.2.1',
      undefined,
      '192.0.2.2',
    ])
    some.release(first ?? '')
    expect(admit(some, '::ffff:192.0.2.1')).toBe('192.0.2.1')
    expect(admit(some, '192.0.2.1')).toBeUndefined()
  })

  it('are those of a whole /64 with IPv6', () => {
    const some = limits()
    const admitted = ['2001:db8::1', '2001:db8::ffff:1', '2001:db8:0:0:1::', '2001:db8:0:1::1'].map(address =>
      admit(some, address),
    )
    expect(admitted.map(network => network !== undefined)).toEqual([true, true, false, true])
  })

  it('may be any number on a Unix socket, and from a trusted proxy', () => {
    const some = limits(['192.0.2.0/24', '2001:db8::/32'])
    for (const address of [undefined, '192.0.2.9', '2001:db8::1']) {
      const all = Array.from({ length: 10 }, () => admit(some, address))
      expect(all).not.toContain(undefined)
      for (const network of all) some.release(network ?? 'none')
    }
    expect(some.addresses).toBe(0)
  })

  it('are forgotten when the last one is closed', () => {
    const some = limits()
    const admitted = [admit(some, '192.0.2.1'), admit(some, '192.0.2.1')]
    expect(some.addresses).toBe(1)
    for (const network of admitted) some.release(network ?? '')
    expect(some.addresses).toBe(0)
  })

  it('share a number in all: one address has half of it, and further ones still find room', () => {
    const some = new SocketLimits({ perAddress: 1000, max: 100, trustedProxies: ['192.0.2.0/24'] })
    const heldBy = (address: string): number => {
      let held = 0
      while ('network' in some.admit(address)) held++
      return held
    }
    expect(['198.51.100.1', '198.51.100.2', '198.51.100.3'].map(heldBy)).toEqual([50, 25, 12])
    expect(some.admit('198.51.100.1')).toEqual({ refusal: 'too-many-from-address' })
    expect(heldBy('192.0.2.1')).toBe(13)
    expect(some.admit('192.0.2.1')).toEqual({ refusal: 'too-many-connections' })
    expect(some.admit('198.51.100.4')).toEqual({ refusal: 'too-many-connections' })
  })
})
