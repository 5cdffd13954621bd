import type { IncomingHttpHeaders } from 'node:http'
import { isIP } from 'node:net'
import { compileAddresses, normalizeAddress, unixAddress } from './addresses.js'
import { parseHost } from './origins.js'

/** The client of a request, as far as its peer is trusted. */
export interface Client {
  /** The client's IP address, normalised, or `unix`. */
  readonly address: string
  /** The client's TCP port; 0 if unknown. */
  readonly port: number
  /** Whether the client's own connection is encrypted. */
  readonly secure: boolean
  /** The requested host and port: `Host`, or `X-Forwarded-Host` of a trusted proxy. */
  readonly host: string | undefined
  /**
   * Whether a proxy that is not in `trustedProxies` has forwarded the request: `address` is the proxy's, and must not give access to
   * anything.
   */
  readonly viaUnknownProxy: boolean
}

/** The parts of a request that a `ClientResolver` reads, HTTP/1.1 or HTTP/2. */
export interface ClientRequest {
  readonly headers: IncomingHttpHeaders
  readonly socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }
}

export type ClientResolver = (request: ClientRequest) => Client

/**
 * Compiles the function that resolves the client of a request.
 *
 * `X-Forwarded-For` is read from the nearest proxy outwards while the hop before is trusted, so that a client cannot claim another
 * address. `X-Forwarded-Proto` and `-Host` count only from a trusted peer, and only their last value, which that peer added. A value
 * that does not parse ends the search, or is ignored.
 *
 * @param trustedProxies addresses, CIDR ranges, `loopback`, `linklocal`, `uniquelocal`, `unix`
 * @throws {TypeError} naming the first invalid entry
 */
export function compileClientResolver(trustedProxies: readonly string[]): ClientResolver {
  const trusted = compileAddresses(trustedProxies)
  return request => {
    const { headers, socket } = request
    const address = socket.remoteAddress === undefined ? unixAddress : normalizeAddress(socket.remoteAddress)
    const port = socket.remotePort ?? 0
    const secure = 'encrypted' in socket && socket.encrypted === true
    if (!trusted(address))
      return { address, port, secure, host: hostOf(headers), viaUnknownProxy: isForwarded(headers) }

    const direct = { address, port, secure, host: hostOf(headers) }
    const host = lastValue(headers['x-forwarded-host'])
    return {
      ...nearestUntrusted(direct, lastValues(headers['x-forwarded-for']), trusted),
      secure: forwardedSecure(headers) ?? direct.secure,
      host: host !== undefined && parseHost(host) !== undefined ? host : direct.host,
      viaUnknownProxy: false,
    }
  }
}

interface Endpoint {
  readonly address: string
  readonly port: number
}

function nearestUntrusted(direct: Endpoint, hops: readonly string[], trusted: (address: string) => boolean): Endpoint {
  let { address, port } = direct
  for (const hop of hops) {
    if (!trusted(address)) break
    const parsed = parseEndpoint(hop)
    if (parsed === undefined) break
    ;({ address, port } = parsed)
  }
  return { address, port }
}

/** Parses `203.0.113.7`, `203.0.113.7:41234`, `2001:db8::7`, `[2001:db8::7]` and `[2001:db8::7]:41234`; proxies send all of them. */
function parseEndpoint(text: string): Endpoint | undefined {
  if (isIP(text) !== 0) return { address: normalizeAddress(text), port: 0 }
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text)
  const address = match?.[1] ?? match?.[2]
  const port = Number(match?.[3] ?? 0)
  if (address === undefined || isIP(address) === 0 || port > 65535) return undefined
  return { address: normalizeAddress(address), port }
}

function forwardedSecure(headers: IncomingHttpHeaders): boolean | undefined {
  const protocol = lastValue(headers['x-forwarded-proto'])?.toLowerCase()
  if (protocol === 'https' || protocol === 'wss') return true
  if (protocol === 'http' || protocol === 'ws') return false
  return undefined
}

/** Whether a proxy has forwarded the request (RFC 7239, RFC 9110 §7.6.3). */
export function isForwarded(headers: IncomingHttpHeaders): boolean {
  return headers['x-forwarded-for'] !== undefined || headers['forwarded'] !== undefined || headers['via'] !== undefined
}

/** HTTP/2 clients send `:authority`, and may send `host` beside it (RFC 9113 §8.3.1). */
function hostOf(headers: IncomingHttpHeaders): string | undefined {
  const authority = headers[':authority']
  return typeof authority === 'string' ? authority : headers.host
}

/** The values of a list header, last first. */
function lastValues(header: string | readonly string[] | undefined): readonly string[] {
  if (header === undefined) return []
  const joined = typeof header === 'string' ? header : header.join(',')
  return joined
    .split(',')
    .map(value => value.trim())
    .reverse()
}

function lastValue(header: string | readonly string[] | undefined): string | undefined {
  return lastValues(header)[0]
}
