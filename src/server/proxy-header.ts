import { isIPv4, isIPv6, SocketAddress } from 'node:net'

/*
 * The header of the PROXY protocol (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), which a proxy sends before the first byte of its client.
 */

/** The ends of a client's connection to the proxy. */
export interface ProxiedConnection {
  readonly remoteAddress: string
  readonly remotePort: number
  readonly localAddress: string
  readonly localPort: number
}

export interface ProxyHeader {
  /** Bytes of the header. */
  readonly size: number
  /** Left out for a connection of the proxy itself, such as a health check (`UNKNOWN`, `LOCAL`), and for address families other than TCP over IP. */
  readonly connection?: ProxiedConnection
}

/** Bytes of the longest header that is accepted, with the fields (TLV) of version 2; haproxy and AWS send fewer than 600. */
const maxProxyHeaderSize = 4096

const signatureV2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const prefixV1 = Buffer.from('PROXY ', 'latin1')
/** Bytes of the longest line of version 1, with its CRLF (§2.1). */
const maxLineSize = 107
/** Bytes of version 2 before the addresses. */
const fixedSize = 16

/**
 * Parses the header at the beginning of `bytes`, version 1 or 2.
 *
 * @returns `undefined` if more bytes are needed
 * @throws {TypeError} if `bytes` do not begin with a valid header
 */
export function parseProxyHeader(bytes: Buffer): ProxyHeader | undefined {
  if (startsLike(bytes, signatureV2)) return bytes.length < fixedSize ? undefined : parseVersion2(bytes)
  if (startsLike(bytes, prefixV1)) return parseVersion1(bytes)
  throw new TypeError('the connection does not begin with a PROXY protocol header')
}

/** Whether `bytes` begin with `prefix`, as far as they go. */
function startsLike(bytes: Buffer, prefix: Buffer): boolean {
  const length = Math.min(bytes.length, prefix.length)
  return bytes.compare(prefix, 0, length, 0, length) === 0
}

/** §2.1. */
function parseVersion1(bytes: Buffer): ProxyHeader | undefined {
  const end = bytes.subarray(0, maxLineSize).indexOf('\r\n')
  if (end === -1) {
    if (bytes.length < maxLineSize) return undefined
    throw new TypeError('the line of the PROXY protocol does not end within 107 bytes')
  }
  const size = end + 2
  const [, family, ...fields] = bytes.toString('latin1', 0, end).split(' ')
  if (family === 'UNKNOWN') return { size }
  const [remoteAddress = '', localAddress = '', remotePort = '', localPort = ''] = fields
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : undefined
  const isValid = isAddress?.(remoteAddress) && isAddress(localAddress) && isPort(remotePort) && isPort(localPort)
  if (!isValid || fields.length !== 4) throw new TypeError('the line of the PROXY protocol is not valid')
  return {
    size,
    connection: { remoteAddress, localAddress, remotePort: Number(remotePort), localPort: Number(localPort) },
  }
}

function isPort(text: string): boolean {
  return /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535
}

/** §2.2. */
function parseVersion2(bytes: Buffer): ProxyHeader | undefined {
  const size = fixedSize + bytes.readUInt16BE(14)
  if (size > maxProxyHeaderSize)
    throw new TypeError(`the PROXY protocol header has more than ${maxProxyHeaderSize} bytes`)
  const command = bytes.readUInt8(12)
  if (command !== 0x20 && command !== 0x21) {
    throw new TypeError('the PROXY protocol header has an unknown version or command')
  }
  if (bytes.length < size) return undefined
  if (command === 0x20) return { size }
  const family = bytes.readUInt8(13)
  if (family !== 0x11 && family !== 0x21) return { size }
  const length = family === 0x11 ? 4 : 16
  const ports = fixedSize + 2 * length
  if (size < ports + 4) throw new TypeError('the PROXY protocol header is too short for its addresses')
  const addressAt = (start: number): string => formatAddress(bytes.subarray(start, start + length))
  return {
    size,
    connection: {
      remoteAddress: addressAt(fixedSize),
      localAddress: addressAt(fixedSize + length),
      remotePort: bytes.readUInt16BE(ports),
      localPort: bytes.readUInt16BE(ports + 2),
    },
  }
}

function formatAddress(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  const address = bytes.toString('hex').replace(/(.{4})(?=.)/g, '$1:')
  return new SocketAddress({ address, family: 'ipv6' }).address
}
