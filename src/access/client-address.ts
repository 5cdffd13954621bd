import type { IncomingHttpHeaders } from 'node:http'
import { isIP } from 'node:net'
import { compileAddresses, normalizeAddress, unixAddress } from './addresses.js'
import { parseHost } from './origins.js'

/** Who sent a request and what they asked for, as far as the peer may be believed. */
export interface Client {
  /** The client's IP address, normalised, or `unix`. */
  readonly address: string
  /** The client's TCP port; 0 where it is not known. */
  readonly port: number
  /** Whether the client's own connection is encrypted. */
  readonly secure: boolean
  /** The host and port that the client asked for: what `Host` says, or a trusted proxy's `X-Forwarded-Host`. */
  readonly host: string | undefined
  /**
   * The request was forwarded by a proxy that is not in `trustedProxies`, so `address` is the proxy's and says nothing
   * about the client. What is open to an address alone should stay closed to such a request.
   */
  readonly viaUnknownProxy: boolean
}

/** What is needed of a request, HTTP/1.1 or HTTP/2. */
export interface ClientRequest {
  readonly headers: IncomingHttpHeaders
  readonly socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }
}

export type ClientResolver = (request: ClientRequest) => Client

/**
 * Makes the function that says who sent a request.
 *
 * `X-Forwarded-For` is walked from the nearest proxy outwards for as long as the hop before it is trusted, so a client
 * cannot put itself behind somebody else's address. `X-Forwarded-Proto` and `-Host` count only from a trusted peer, and
 * of several values the last, which is the one that this peer added. What does not parse ends the walk or is ignored.
 *
 * @param trustedProxies addresses, CIDR ranges, `loopback`, `linklocal`, `uniquelocal`, `unix`
 * @throws {TypeError} naming the first entry that is none of these
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

/** `203.0.113.7`, `203.0.113.7:41234`, `2001:db8::7`, `[2001:db8::7]`, `[2001:db8::7]:41234`; all are seen in the wild. */
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

/** Whether a proxy says that it sent the request on for somebody (RFC 7239, RFC 9110 §7.6.3). */
export function isForwarded(headers: IncomingHttpHeaders): boolean {
  return headers['x-forwarded-for'] !== undefined || headers['forwarded'] !== undefined || headers['via'] !== undefined
}

/** HTTP/2 clients send `:authority`, and `host` at most beside it (RFC 9113 §8.3.1). */
function hostOf(headers: IncomingHttpHeaders): string | undefined {
  const authority = headers[':authority']
  return typeof authority === 'string' ? authority : headers.host
}

/** The values of a list header, the last one first. */
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
