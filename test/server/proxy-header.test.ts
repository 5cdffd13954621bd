import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Peer } from '../../src/broker/broker.js'
import { proxyHeaderV1, proxyHeaderV2 } from '../../src/broker/upstream/proxy-protocol.js'
import { parseProxyHeader } from '../../src/server/proxy-header.js'

const ends = { remoteAddress: '192.0.2.7', remotePort: 56324, localAddress: '192.0.2.1', localPort: 443 }
const v1 = (line: string): Buffer => Buffer.from(line, 'latin1')
const v2 = (hex: string): Buffer => Buffer.from(`0d0a0d0a000d0a515549540a${hex}`, 'hex')

describe('a PROXY protocol header', () => {
  it('is read as it was written, at any addresses and ports, and never before its last byte', () => {
    const addresses = fc.oneof(
      fc.tuple(fc.ipV4(), fc.ipV4()),
      fc.tuple(fc.ipV6(), fc.ipV6()).filter(([a, b]) => ![a, b].some(each => each.includes('.'))),
    )
    const port = fc.nat(65_535)
    fc.assert(
      fc.property(addresses, port, port, fc.boolean(), fc.uint8Array(), (pair, remotePort, localPort, isText, rest) => {
        const [address, localAddress] = pair
        const peer: Peer = { address, localAddress, port: remotePort, localPort }
        const header = isText ? proxyHeaderV1(peer) : proxyHeaderV2(peer)
        for (let length = 0; length < header.length; length++) {
          expect(parseProxyHeader(header.subarray(0, length))).toBeUndefined()
        }
        const { size, connection } = parseProxyHeader(Buffer.concat([header, rest])) ?? {}
        expect(size).toBe(header.length)
        expect(connection && (isText ? proxyHeaderV1 : proxyHeaderV2)(asPeer(connection))).toEqual(header)
      }),
    )
  })

  it.each([
    ['version 1', v1('PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\nGET /'), { size: 42, connection: ends }],
    ['the longest line', v1(`PROXY UNKNOWN ${'f'.repeat(91)}\r\n`), { size: 107 }],
    ['the proxy itself, version 1', v1('PROXY UNKNOWN\r\n'), { size: 15 }],
    ['version 2', v2('2111000cc0000207c0000201dc0401bb'), { size: 28, connection: ends }],
    ['version 2 with further fields', v2('21110010c0000207c0000201dc0401bb04000101'), { size: 32, connection: ends }],
    ['the proxy itself, version 2', v2('20000000'), { size: 16 }],
    ['UDP', v2('2112000cc0000207c0000201dc0401bb'), { size: 28 }],
  ])('is understood: %s', (_title, bytes, header) => {
    expect(parseProxyHeader(bytes)).toEqual(header)
  })

  it.each([
    ['no header', v1('GET / HTTP/1.1\r\n'), /does not begin with/],
    ['an MQTT CONNECT', Buffer.from('101000044d515454', 'hex'), /does not begin with/],
    ['a line that does not end', v1(`PROXY TCP4 ${'1'.repeat(100)}`), /107 bytes/],
    ['a name in place of an address', v1('PROXY TCP4 localhost 192.0.2.1 1 2\r\n'), /not valid/],
    ['IPv6 where IPv4 is announced', v1('PROXY TCP4 ::1 ::1 1 2\r\n'), /not valid/],
    ['a port too large', v1('PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n'), /not valid/],
    ['a field too many', v1('PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n'), /not valid/],
    ['an unknown family', v1('PROXY __proto__ 192.0.2.7 192.0.2.1 1 2\r\n'), /not valid/],
    ['version 3', v2('3111000c'), /unknown version/],
    ['too few bytes for its addresses', v2('21210004c0000207'), /too short/],
    ['more fields than anybody sends', v2('2111ffff'), /4096/],
  ])('is refused: %s', (_title, bytes, message) => {
    expect(() => parseProxyHeader(bytes)).toThrow(message)
  })

  it('is refused with a TypeError, or understood, whatever the bytes are', () => {
    const begin = fc.constantFrom(v1('PROXY TCP4 '), v1('PROXY '), v2(''), v2('2111'), Buffer.alloc(0))
    fc.assert(
      fc.property(begin, fc.uint8Array({ maxLength: 200 }), (start, rest) => {
        try {
          parseProxyHeader(Buffer.concat([start, rest]))
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError)
          expect(error).not.toHaveProperty('code')
        }
      }),
    )
  })
})

function asPeer(of: typeof ends): Peer {
  return { address: of.remoteAddress, port: of.remotePort, localAddress: of.localAddress, localPort: of.localPort }
}
