import { isIPv4 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Peer } from '../../../src/broker/broker.js'
import { proxyHeaderV1, proxyHeaderV2 } from '../../../src/broker/upstream/proxy-protocol.js'

const peer = (address: string, localAddress: string, port = 56324, localPort = 443): Peer => ({
  address,
  port,
  localAddress,
  localPort,
})
const signature = '0d0a0d0a000d0a515549540a'

describe('the PROXY protocol, version 1', () => {
  it.each([
    // The longest lines are those of §2.1.
    [
      peer('255.255.255.255', '255.255.255.255', 65535, 65535),
      'PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n',
    ],
    [peer('192.168.0.1', '192.168.0.11'), 'PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n'],
    [peer('2001:db8::1', '2001:db8::2'), 'PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n'],
    [peer('::ffff:192.0.2.1', '::ffff:c000:202'), 'PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n'],
    [peer('192.0.2.1', '::1'), 'PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 443\r\n'],
    [peer('fe80::1%eth0', 'fe80::2'), 'PROXY TCP6 fe80::1 fe80::2 56324 443\r\n'],
    [peer('unix', 'unix', 0, 0), 'PROXY UNKNOWN\r\n'],
    [peer('192.0.2.1', 'unix'), 'PROXY UNKNOWN\r\n'],
  ])('%o', (from, line) => {
    expect(proxyHeaderV1(from).toString('latin1')).toBe(line)
  })
})

describe('the PROXY protocol, version 2', () => {
  it.each([
    [peer('192.168.0.1', '192.168.0.11'), '2111000c' + 'c0a80001' + 'c0a8000b' + 'dc0401bb'],
    [
      peer('2001:db8::1', '::1'),
      '21210024' + '20010db8000000000000000000000001' + '00000000000000000000000000000001' + 'dc0401bb',
    ],
    [peer('unix', 'unix', 0, 0), '20000000'],
  ])('%o', (from, bytes) => {
    expect(proxyHeaderV2(from).toString('hex')).toBe(signature + bytes)
  })

  it('is read back as it was written, for any addresses', () => {
    const address = fc.oneof(fc.ipV4(), fc.ipV6())
    fc.assert(
      fc.property(address, address, fc.nat(65535), fc.nat(65535), (source, destination, port, localPort) => {
        const read = parse(proxyHeaderV2(peer(source, destination, port, localPort)))
        expect(read).toEqual({
          source: canonical(source, read.source),
          destination: canonical(destination, read.destination),
          port,
          localPort,
        })
      }),
    )
  })
})

interface Read {
  source: string
  destination: string
  port: number
  localPort: number
}

/** A reader of its own, after §2.2. */
function parse(header: Buffer): Read {
  expect(header.subarray(0, 12).toString('hex')).toBe(signature)
  expect(header[12]).toBe(0x21)
  const body = header.subarray(16)
  expect(header.readUInt16BE(14)).toBe(body.length)
  const size = header[13] === 0x11 ? 4 : 16
  return {
    source: text(body.subarray(0, size)),
    destination: text(body.subarray(size, 2 * size)),
    port: body.readUInt16BE(2 * size),
    localPort: body.readUInt16BE(2 * size + 2),
  }
}

function text(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index).toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname
}

/** `address` in the family in which it was written. */
function canonical(address: string, written: string): string {
  if (isIPv4(address) && isIPv4(written)) return address
  const hostname = new URL(`http://[${isIPv4(address) ? `::ffff:${address}` : address}]`).hostname
  const mapped = /^\[::ffff:([0-9a-f]+):([0-9a-f]+)\]$/.exec(hostname)
  if (!mapped || !isIPv4(written)) return hostname
  const [high = 0, low = 0] = mapped.slice(1).map(group => Number.parseInt(group, 16))
  return [high >> 8, high & 0xff, low >> 8, low & 0xff].join('.')
}
