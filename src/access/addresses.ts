import { isIPv6, SocketAddress } from 'node:net'
import proxyAddr from 'proxy-addr'

/** What stands for the address of a peer on a Unix socket. */
export const unixAddress = 'unix'

const mappedPrefix = '::ffff:'

/**
 * One spelling per IP address: IPv6 in lower case, compressed and without its zone; IPv4-mapped IPv6 as the IPv4 that it
 * is. What is no IP address is given back as it is.
 */
export function normalizeAddress(address: string): string {
  // Each new connection asks several times, and what is no IPv6 address is seen without the expression that knows them.
  if (!address.includes(':')) return address
  const bare = address.split('%', 1)[0] ?? address
  if (!isIPv6(bare)) return address
  const canonical = new SocketAddress({ address: bare, family: 'ipv6' }).address
  const mapped = canonical.startsWith(mappedPrefix) ? canonical.slice(mappedPrefix.length) : ''
  return mapped.includes('.') ? mapped : canonical
}

/**
 * Whether an address is in a list, compiled once.
 *
 * @param list addresses, CIDR ranges, and the names `loopback`, `linklocal`, `uniquelocal` and `unix`; `loopback` includes
 *   peers on a Unix socket, which are processes of the same machine as well
 * @throws {TypeError} naming the first entry that is none of these
 */
export function compileAddresses(list: readonly string[]): (address: string) => boolean {
  const includesUnix = list.includes('unix') || list.includes('loopback')
  const matches = proxyAddr.compile(list.filter(entry => entry !== 'unix'))
  return address => (address === unixAddress ? includesUnix : matches(address, 0))
}

/** An address as it stands in a URL: IPv6 in brackets (RFC 3986 §3.2.2). */
export function formatHost(address: string): string {
  return isIPv6(address) ? `[${address}]` : address
}
