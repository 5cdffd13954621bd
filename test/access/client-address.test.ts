import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileAddresses, normalizeAddress } from '../../src/access/addresses.js'
import { type ClientRequest, compileClientResolver } from '../../src/access/client-address.js'

const request = (remoteAddress: string | undefined, headers: ClientRequest['headers'], encrypted = false) => ({
  headers,
  socket: { remoteAddress, remotePort: 4000, encrypted },
})

describe('the client', () => {
  const resolve = compileClientResolver(['127.0.0.1', '10.0.0.0/8', 'fd00::/8'])

  it('is the peer when no proxy is trusted, whatever the headers say', () => {
    const headers = { 'x-forwarded-for': '1.2.3.4', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'x', host: 'a' }
    expect(compileClientResolver([])(request('127.0.0.1', headers))).toEqual({
      address: '127.0.0.1',
      port: 4000,
      secure: false,
      host: 'a',
      viaUnknownProxy: true,
    })
  })

  it.each([
    ['203.0.113.7', '203.0.113.7', 0],
    ['203.0.113.7:41234', '203.0.113.7', 41234],
    ['[2001:db8::7]:41234', '2001:db8::7', 41234],
    ['2001:DB8::7', '2001:db8::7', 0],
    ['::ffff:203.0.113.7', '203.0.113.7', 0],
    ['1.1.1.1, 203.0.113.7', '203.0.113.7', 0],
    ['1.1.1.1, 203.0.113.7, 10.1.2.3', '203.0.113.7', 0],
    ['10.9.9.9', '10.9.9.9', 0],
    ['unknown', '127.0.0.1', 4000],
    ['1.1.1.1, garbage, 10.1.2.3', '10.1.2.3', 0],
    ['203.0.113.7:99999', '127.0.0.1', 4000],
    ['', '127.0.0.1', 4000],
  ])('behind a trusted proxy that says %j is %s', (forwarded, address, port) => {
    expect(resolve(request('::ffff:127.0.0.1', { 'x-forwarded-for': forwarded }))).toMatchObject({ address, port })
  })

  it('asked for what the trusted proxy says', () => {
    const headers = { host: 'inside:8080', 'x-forwarded-host': 'evil, a.example', 'x-forwarded-proto': 'http, https' }
    expect(resolve(request('10.0.0.1', headers))).toMatchObject({ host: 'a.example', secure: true })
    expect(resolve(request('192.0.2.1', headers))).toMatchObject({ host: 'inside:8080', secure: false })
  })

  it('asked for what Host says when the proxy says nothing that is a host or protocol', () => {
    const headers = { host: 'inside', 'x-forwarded-host': 'a b', 'x-forwarded-proto': 'gopher' }
    expect(resolve(request('10.0.0.1', headers, true))).toMatchObject({ host: 'inside', secure: true })
  })

  it('is "unix" on a Unix socket, and behind it who the proxy says, when that is trusted', () => {
    const headers = { 'x-forwarded-for': '203.0.113.7' }
    expect(resolve(request(undefined, headers))).toMatchObject({ address: 'unix', viaUnknownProxy: true })
    expect(compileClientResolver(['unix'])(request(undefined, headers)).address).toBe('203.0.113.7')
    expect(compileClientResolver(['loopback'])(request(undefined, headers)).address).toBe('203.0.113.7')
  })

  it('is always the peer or an address, whatever the headers hold', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (forwarded, host) => {
        const headers = { 'x-forwarded-for': `${forwarded}, 10.0.0.2`, 'x-forwarded-host': host }
        const { address } = resolve(request('127.0.0.1', headers))
        expect(normalizeAddress(address)).toBe(address)
        expect(address).toMatch(/^[0-9a-f.:]+$/)
      }),
    )
  })

  it('says which entry of the list is none', () => {
    expect(() => compileAddresses(['loopback', 'localhost'])).toThrow(/localhost/)
  })
})
