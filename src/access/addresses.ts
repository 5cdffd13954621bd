import { isIPv6, SocketAddress } from 'node:net'
import proxyAddr from 'proxy-addr'

/** The address of a peer on a Unix socket. */
export const unixAddress = 'unix'

const mappedPrefix = '::ffff:'

/**
 * Normalizes an IP address: IPv6 in lower case, compressed and without its zone (RFC 5952); IPv4-mapped IPv6 as IPv4. Other texts are
 * returned unchanged.
 */
export function normalizeAddress(address: string): string {
  // Called several times for each new connection: without a regular expression for IPv4.
  if (!address.includes(':')) return address
  const bare = address.split('%', 1)[0] ?? address
  if (!isIPv6(bare)) return address
  const canonical = new SocketAddress({ address: bare, family: 'ipv6' }).address
  const mapped = canonical.startsWith(mappedPrefix) ? canonical.slice(mappedPrefix.length) : ''
  return mapped.includes('.') ? mapped : canonical
}

/**
 * Compiles a list of addresses into a predicate.
 *
 * @param list addresses, CIDR ranges, and the names `loopback`, `linklocal`, `uniquelocal` and `unix`; `loopback` includes
 *   peers on a Unix socket, which are processes of the same machine as well
 * @throws {TypeError} naming the first invalid entry
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
