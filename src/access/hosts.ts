import type { IncomingHttpHeaders } from 'node:http'
import { isIP } from 'node:net'
import { isLoopback } from '../config/listeners.js'
import { parseHost } from './origins.js'

/** Whether a request for this host is served. */
export type HostPolicy = (request: HostedRequest, host: string | undefined) => boolean

/** The parts of a request that a `HostPolicy` reads, HTTP/1.1 or HTTP/2. */
export interface HostedRequest {
  readonly headers: IncomingHttpHeaders
  readonly socket: { readonly remoteAddress?: string | undefined }
}

/** Serves every host. */
export const anyHost: HostPolicy = () => true

export interface HostOptions {
  /** Host names without ports; `*.a.example` for all below `a.example`, `*` for all. Default: see `tcp` and `unix`. */
  readonly names?: readonly string[] | undefined
  /** Hosts that TCP connections may request without `names`. */
  readonly tcp: 'loopback' | 'any'
  /** Hosts that connections on Unix sockets, usually from a reverse proxy, may request without `names`. */
  readonly unix: 'loopback' | 'any'
}

/**
 * Compiles the hosts that are served, against DNS rebinding: a page of another site whose name resolves to this machine sends its own
 * name, and is same-origin to its browser. Loopback names (RFC 6761 §6.3) and addresses always pass, because no foreign DNS server
 * answers for them; so does a request without `Host` (HTTP/1.0), which no browser sends.
 *
 * Both `Host` and the host that a trusted proxy forwards must pass: a rebound page can send any `X-Forwarded-Host`.
 *
 * @throws {TypeError} naming the first entry of `names` that is no host name
 */
export function compileHosts({ names, tcp, unix }: HostOptions): HostPolicy {
  if (names?.includes('*')) return anyHost
  const listed = new Set(names?.map(compileName))
  const wildcards = [...listed].filter(name => name.startsWith('*.')).map(name => name.slice(1))
  const passes = (host: string | undefined): boolean => {
    if (host === undefined || isUsualLoopback.test(host)) return true
    const name = parseHost(host)?.host
    if (name === undefined) return false
    return listed.has(name) || wildcards.some(end => name.endsWith(end)) || isLoopbackName(name)
  }
  return ({ headers, socket }, host) => {
    if (names === undefined && (socket.remoteAddress === undefined ? unix : tcp) === 'any') return true
    const own = headers[':authority'] ?? headers.host
    return passes(typeof own === 'string' ? own : undefined) && (host === own || passes(host))
  }
}

function compileName(entry: string): string {
  const name = hostOf(entry)
  if (name === undefined) throw new TypeError(`host ${JSON.stringify(entry)} must be a.example or *.a.example`)
  return name
}

function hostOf(entry: string): string | undefined {
  const wildcard = entry.startsWith('*.') ? '*.' : ''
  const name = entry.slice(wildcard.length)
  const address = isIP(name) === 6 ? `[${name}]` : name
  const host = parseHost(address)?.host
  return host === undefined ? undefined : wildcard + host
}

/** The usual loopback hosts, without the URL parser. */
const isUsualLoopback = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/

function isLoopbackName(host: string): boolean {
  return host.endsWith('.localhost') || isLoopback(host.replace(/^\[|\]$/g, ''))
}
