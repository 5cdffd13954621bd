import { describe, expect, it } from 'vitest'
import { SocketLimits } from '../../src/access/socket-limits.js'

const limits = (trustedProxies: readonly string[] = []): SocketLimits =>
  new SocketLimits({ perAddress: 2, trustedProxies })

describe('sockets of one address', () => {
  it('may be so many; each that closes makes room for one', () => {
    const some = limits()
    const first = some.admit('192.0.2.1')
    expect([some.admit('192.0.2.1'), some.admit('192.0.2.1'), some.admit('192.0.2.2')]).toEqual([
      '192.0.2.1',
      undefined,
      '192.0.2.2',
    ])
    some.release(first ?? '')
    expect(some.admit('::ffff:192.0.2.1')).toBe('192.0.2.1')
    expect(some.admit('192.0.2.1')).toBeUndefined()
  })

  it('are those of a whole /64 with IPv6', () => {
    const some = limits()
    const admitted = ['2001:db8::1', '2001:db8::ffff:1', '2001:db8:0:0:1::', '2001:db8:0:1::1'].map(address =>
      some.admit(address),
    )
    expect(admitted.map(network => network !== undefined)).toEqual([true, true, false, true])
  })

  it('may be any number on a Unix socket, and from a trusted proxy', () => {
    const some = limits(['192.0.2.0/24', '2001:db8::/32'])
    for (const address of [undefined, '192.0.2.9', '2001:db8::1']) {
      const all = Array.from({ length: 10 }, () => some.admit(address))
      expect(all).not.toContain(undefined)
      for (const network of all) some.release(network ?? 'none')
    }
    expect(some.addresses).toBe(0)
  })

  it('are forgotten when the last one is closed', () => {
    const some = limits()
    const admitted = [some.admit('192.0.2.1'), some.admit('192.0.2.1')]
    expect(some.addresses).toBe(1)
    for (const network of admitted) some.release(network ?? '')
    expect(some.addresses).toBe(0)
  })
})
