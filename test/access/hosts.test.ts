import { describe, expect, it } from 'vitest'
import { compileHosts, type HostOptions } from '../../src/access/hosts.js'

const tcp = { remoteAddress: '127.0.0.1' }

function serves(options: HostOptions, host: string | undefined, forwarded = host, socket: object = tcp): boolean {
  return compileHosts(options)({ headers: host === undefined ? {} : { host }, socket }, forwarded)
}

describe('hosts that are served', () => {
  it.each([
    ['localhost', true],
    ['LOCALHOST:8080', true],
    ['app.localhost', true],
    ['127.0.0.1:1', true],
    ['127.1.2.3', true],
    ['[::1]:8080', true],
    [undefined, true],
    ['192.168.1.7', false],
    ['[2001:db8::1]', false],
    ['evil.example', false],
    ['localhost.evil.example', false],
    ['127.0.0.1.evil.example', false],
    ['localhost.', false],
    ['', false],
    ['a b', false],
  ])('on loopback only: %s: %s', (host, expected) => {
    expect(serves({ tcp: 'loopback', unix: 'any' }, host)).toBe(expected)
    expect(serves({ tcp: 'any', unix: 'loopback' }, host, host, {})).toBe(expected)
    expect(serves({ tcp: 'any', unix: 'any' }, host)).toBe(true)
    expect(serves({ tcp: 'loopback', unix: 'any' }, host, host, {})).toBe(true)
  })

  it.each([
    ['a.example', true],
    ['A.EXAMPLE:8443', true],
    ['b.a.example', false],
    ['c.b.example', true],
    ['b.example', false],
    ['localhost', true],
    ['10.0.0.1', true],
    ['[2001:db8::1]:8080', true],
    ['10.0.0.2', false],
    ['evil.example', false],
  ])('that are listed, beside loopback: %s: %s', (host, expected) => {
    const names = ['a.example', '*.b.example', '10.0.0.1', '2001:db8::1']
    for (const wide of ['loopback', 'any'] as const) {
      expect(serves({ names, tcp: wide, unix: wide }, host)).toBe(expected)
      expect(serves({ names, tcp: wide, unix: wide }, host, host, {})).toBe(expected)
    }
  })

  it('are so both in Host and in what a proxy forwards', () => {
    const options = { names: ['a.example'], tcp: 'loopback', unix: 'any' } as const
    expect(serves(options, 'localhost:8080', 'a.example')).toBe(true)
    expect(serves(options, 'localhost:8080', 'evil.example')).toBe(false)
    expect(serves(options, 'evil.example', 'a.example')).toBe(false)
  })

  it('must be names', () => {
    expect(() => compileHosts({ names: ['a/b'], tcp: 'any', unix: 'any' })).toThrow(/"a\/b"/)
  })
})
