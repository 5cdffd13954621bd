/**
 * Whether a page of this origin may connect.
 *
 * @param origin the `Origin` header, `undefined` when none was sent
 * @param host the host and port that the client asked for, as in `Host`
 * @param secure whether the client's connection is encrypted
 */
export type OriginPolicy = (origin: string | undefined, host: string | undefined, secure: boolean) => boolean

export interface OriginOptions {
  /** Refuse a request without `Origin`, which no browser sends. Default: false. */
  readonly requireOrigin?: boolean
}

/** A host name has at most 253 characters. This also bounds the input of configured regular expressions. */
const maxOriginLength = 512

const forms =
  'same-origin, https://a.example, https://*.a.example, *.a.example, a.example, /regular expression/, null or *'

/**
 * Compiles a list of origins; an origin passes if any entry allows it.
 *
 * - `same-origin`: host and port as in `Host`, and https where the connection is encrypted
 * - `https://a.example`, `https://a.example:8443`: this origin and no other (RFC 6454 §5)
 * - `a.example`, `a.example:8443`: this host with any scheme, and any port unless one is given
 * - `https://*.a.example`, `*.a.example`: hosts below `a.example`, at any depth; not `a.example` itself
 * - `/…/`: a header that the regular expression matches, which has its own anchors
 * - `null`: sandboxed pages and files; `*`: any origin
 *
 * Hosts are compared after the URL parser has normalized both: case, default ports, international names and IPv6.
 *
 * @throws {TypeError} naming the first invalid entry
 */
export function compileOrigins(list: readonly string[], options: OriginOptions = {}): OriginPolicy {
  const { requireOrigin = false } = options
  const entries = list.map(compileEntry)
  return (origin, host, secure) => {
    if (origin === undefined) return !requireOrigin
    if (origin.length > maxOriginLength) return false
    const request: OriginRequest = { text: origin, parsed: parseOrigin(origin), host, secure }
    return entries.some(allows => allows(request))
  }
}

interface Origin {
  readonly scheme: string
  readonly host: string
  readonly port: string
}

interface OriginRequest {
  readonly text: string
  readonly parsed: Origin | undefined
  readonly host: string | undefined
  readonly secure: boolean
}

type EntryPolicy = (request: OriginRequest) => boolean

function compileEntry(entry: string): EntryPolicy {
  if (entry === '*') return () => true
  if (entry === 'null') return request => request.text === 'null'
  if (entry === 'same-origin') return isSameOrigin
  if (entry.length > 2 && entry.startsWith('/') && entry.endsWith('/')) {
    const pattern = compilePattern(entry)
    return request => pattern.test(request.text)
  }
  const [, scheme, wildcard, authority = ''] = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(\*\.)?(.*?)\/?$/i.exec(entry) ?? []
  const wanted = parseOrigin(`${scheme ?? 'http'}://${authority}`)
  if (wanted === undefined) throw new TypeError(`origin ${JSON.stringify(entry)} must be ${forms}`)

  const anyPort = scheme === undefined && !/:\d+$/.test(authority)
  const port = scheme === undefined ? (/:(\d+)$/.exec(authority)?.[1] ?? '') : wanted.port
  const below = `.${wanted.host}`
  return ({ parsed }) =>
    parsed !== undefined &&
    (scheme === undefined || parsed.scheme === wanted.scheme) &&
    (anyPort || parsed.port === port) &&
    (wildcard === undefined ? parsed.host === wanted.host : parsed.host.endsWith(below))
}

function compilePattern(entry: string): RegExp {
  try {
    return new RegExp(entry.slice(1, -1), 'u')
  } catch (cause) {
    throw new TypeError(`origin ${JSON.stringify(entry)} is not a regular expression`, { cause })
  }
}

/**
 * A plain connection may have come through an untrusted proxy that terminates TLS, so that the page's own scheme gives the port of a
 * `Host` without one; an encrypted connection is never same-origin with http.
 */
function isSameOrigin({ parsed, host, secure }: OriginRequest): boolean {
  if (parsed === undefined || host === undefined) return false
  if (parsed.scheme !== 'https' && (secure || parsed.scheme !== 'http')) return false
  const own = parseHost(host, parsed.scheme)
  return own?.host === parsed.host && own.port === parsed.port
}

/**
 * Normalizes a `Host` header; the scheme gives the default port. @returns `undefined` if it is not a host with an optional port
 * (RFC 9110 §7.2)
 */
export function parseHost(host: string, scheme = 'http'): Origin | undefined {
  return parseOrigin(`${scheme}://${host}`)
}

const defaultPorts: Readonly<Record<string, string>> = { http: '80', ws: '80', https: '443', wss: '443' }

/** Parses a serialized origin (RFC 6454 §6.2); `undefined` for anything else. */
function parseOrigin(text: string): Origin | undefined {
  // The URL parser accepts what an origin cannot have: blanks, a path, a user, backslashes, a wildcard.
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^\s/\\?#@*]+$/i.test(text) || !URL.canParse(text)) return undefined
  const url = new URL(text)
  if (url.hostname === '') return undefined
  const scheme = url.protocol.slice(0, -1)
  // The URL parser lowercases hosts of the web's schemes only.
  return { scheme, host: url.hostname.toLowerCase(), port: url.port || (defaultPorts[scheme] ?? '') }
}
