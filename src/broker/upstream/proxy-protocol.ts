import { isIPv4, isIPv6 } from 'node:net'
import type { Peer } from '../broker.js'

/*
 * The PROXY protocol (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt): a header before the first byte has the client's address.
 */

interface Addresses {
  readonly family: 4 | 6
  readonly source: string
  readonly destination: string
}

/**
 * The text header of version 1 (§2.1), at most 107 bytes.
 *
 * A peer without IP addresses (a Unix socket, or mqway itself) becomes `UNKNOWN`, for which the broker takes the
 * connection's own addresses.
 */
export function proxyHeaderV1(peer: Peer): Buffer {
  const addresses = addressesOf(peer)
  if (!addresses) return Buffer.from('PROXY UNKNOWN\r\n')
  const { family, source, destination } = addresses
  return Buffer.from(`PROXY TCP${family} ${source} ${destination} ${peer.port} ${peer.localPort}\r\n`, 'latin1')
}

/** Signature (§2.2). */
const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const version2 = 0x20
const commandProxy = 0x01
const tcpOverIPv4 = 0x11
const tcpOverIPv6 = 0x21

/**
 * The binary header of version 2 (§2.2): 28 bytes for IPv4, 52 for IPv6.
 *
 * A peer without IP addresses becomes the command LOCAL, 16 bytes: a connection on the proxy's own behalf.
 */
export function proxyHeaderV2(peer: Peer): Buffer {
  const addresses = addressesOf(peer)
  if (!addresses) return Buffer.concat([signature, Buffer.from([version2, 0, 0, 0])])
  const toBytes = addresses.family === 4 ? bytesOfIPv4 : bytesOfIPv6
  const body = Buffer.concat([toBytes(addresses.source), toBytes(addresses.destination), Buffer.alloc(4)])
  body.writeUInt16BE(peer.port, body.length - 4)
  body.writeUInt16BE(peer.localPort, body.length - 2)
  const family = addresses.family === 4 ? tcpOverIPv4 : tcpOverIPv6
  return Buffer.concat([signature, Buffer.from([version2 | commandProxy, family, 0, body.length]), body])
}

/** Both addresses in one family, as the headers require; `undefined` if one is no IP address. */
function addressesOf(peer: Peer): Addresses | undefined {
  const source = plainAddress(peer.address)
  const destination = plainAddress(peer.localAddress)
  if (source === undefined || destination === undefined) return undefined
  if (isIPv4(source) && isIPv4(destination)) return { family: 4, source, destination }
  const mapped = (address: string): string => (isIPv4(address) ? `::ffff:${address}` : address)
  return { family: 6, source: mapped(source), destination: mapped(destination) }
}

/** Removes a zone (`fe80::1%eth0`), and maps `::ffff:192.0.2.1` to IPv4. */
function plainAddress(address: string): string | undefined {
  const bare = address.replace(/%.*$/, '')
  if (isIPv4(bare)) return bare
  if (!isIPv6(bare)) return undefined
  const bytes = bytesOfIPv6(bare)
  const isMapped = bytes.subarray(0, 10).every(byte => byte === 0) && bytes.readUInt16BE(10) === 0xffff
  return isMapped ? bytes.subarray(12).join('.') : bare
}

function bytesOfIPv4(address: string): Buffer {
  return Buffer.from(address.split('.').map(Number))
}

/** @param address a valid IPv6 address, possibly with `::` and a dotted IPv4 tail */
function bytesOfIPv6(address: string): Buffer {
  const [head = '', tail] = address.split('::')
  const before = bytesOfGroups(head)
  const after = bytesOfGroups(tail ?? '')
  return Buffer.concat([before, Buffer.alloc(16 - before.length - after.length), after])
}

function bytesOfGroups(text: string): Buffer {
  if (text === '') return Buffer.alloc(0)
  return Buffer.concat(
    text.split(':').map(group => {
      if (group.includes('.')) return bytesOfIPv4(group)
      return Buffer.from(group.padStart(4, '0'), 'hex')
    }),
  )
}
