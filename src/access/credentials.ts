import type { IncomingHttpHeaders } from 'node:http'
import { GatewayError } from '../base/errors.js'
import { isUserName } from '../base/identity.js'
import type { ClientCertificate } from './client-certificate.js'

/** A credential of a request or a CONNECT. */
export type Credential =
  | { readonly kind: 'ticket'; readonly ticket: string }
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'password'; readonly user: string; readonly password: string }
  | { readonly kind: 'certificate'; readonly certificate: ClientCertificate }

/** The parts of a request that `readCredential` reads, HTTP/1.1 or HTTP/2. */
export interface CredentialRequest {
  readonly headers: IncomingHttpHeaders
  /** The request target with its query. */
  readonly url?: string | undefined
}

export interface CredentialOptions {
  /** The name of the cookie with a token; `undefined` for none. */
  readonly cookie?: string | undefined
  /** The client certificate of the connection. */
  readonly certificate?: ClientCertificate | undefined
}

/**
 * Reads the credential of a request: the first of `?ticket=`, `Authorization: Bearer` or `Basic`,
 * `Sec-WebSocket-Protocol: mqtt, bearer.<token>`, the cookie and the client certificate. A page's own credential precedes those that
 * the browser adds; later ones are ignored. A token is never read from a URL.
 *
 * A cookie counts only if the request names its page: with `Origin`, which is checked before, or with `Sec-Fetch-Site: same-origin`,
 * which no page can set.
 *
 * @returns `undefined` without a credential
 * @throws {GatewayError} `identity-refused` for a malformed credential, `origin-refused` for a cookie without `Origin`
 */
export function readCredential(request: CredentialRequest, options: CredentialOptions = {}): Credential | undefined {
  const { headers, url } = request
  return (
    ticketOf(url) ??
    authorizationOf(headers.authorization) ??
    bearerSubprotocolOf(headers['sec-websocket-protocol']) ??
    cookieOf(headers, options.cookie) ??
    (options.certificate === undefined ? undefined : { kind: 'certificate', certificate: options.certificate })
  )
}

/**
 * Reads the credential of an MQTT CONNECT; `undefined` if it has neither user name nor password.
 *
 * @throws {GatewayError} `identity-refused` for an invalid user name, and for a password that is not UTF-8
 */
export function mqttCredential(user: string | undefined, password: Uint8Array | undefined): Credential | undefined {
  if (user === undefined && password === undefined) return undefined
  return passwordOf(user ?? '', decodeUtf8(password ?? new Uint8Array()))
}

/** The request headers for the webhook; a cookie under the same condition as in `readCredential`. */
export function forwardedHeaders(headers: IncomingHttpHeaders, names: readonly string[]): Record<string, string> {
  const found = names.flatMap(name => {
    const key = name.toLowerCase()
    const value = Object.hasOwn(headers, key) ? headers[key] : undefined
    if (value === undefined || (key === 'cookie' && !isFromPage(headers))) return []
    return [[key, [value].flat().join(', ')]]
  })
  return Object.fromEntries(found)
}

function refused(hint: string): GatewayError {
  return new GatewayError('identity-refused', { hint })
}

function ticketOf(url = ''): Credential | undefined {
  const query = url.indexOf('?')
  if (query === -1) return undefined
  const tickets = new URLSearchParams(url.slice(query + 1).replace(/#.*$/s, '')).getAll('ticket')
  const [ticket] = tickets
  if (ticket === undefined) return undefined
  if (tickets.length > 1) throw refused('there are several tickets')
  return { kind: 'ticket', ticket }
}

/** RFC 6750 §2.1 */
const tokenForm = /^[A-Za-z0-9._~+/-]+=*$/

function tokenOf(token: string, where: string): Credential {
  if (!tokenForm.test(token)) throw refused(`${where} has no token`)
  return { kind: 'token', token }
}

function authorizationOf(header: string | undefined): Credential | undefined {
  if (header === undefined) return undefined
  const [, scheme = '', rest = ''] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +([^ ]+))?$/.exec(header.trim()) ?? []
  if (scheme.toLowerCase() === 'bearer') return tokenOf(rest, 'Authorization: Bearer')
  if (scheme.toLowerCase() === 'basic') return basicOf(rest)
  throw refused('Authorization must be Bearer or Basic')
}

/** RFC 7617: the user name ends at the first colon; both are UTF-8. */
function basicOf(encoded: string): Credential {
  const wellFormed = /^[A-Za-z0-9+/]+={0,2}$/.test(encoded)
  const text = wellFormed ? decodeUtf8(Buffer.from(encoded, 'base64')) : ''
  const colon = text.indexOf(':')
  if (colon === -1) throw refused('Authorization: Basic must be user:password in base64')
  return passwordOf(text.slice(0, colon), text.slice(colon + 1))
}

function passwordOf(user: string, password: string): Credential {
  if (!isUserName(user)) throw refused('the user name must have 1 to 255 bytes, and no control characters')
  return { kind: 'password', user, password }
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw refused('user name and password must be UTF-8')
  }
}

const bearerPrefix = 'bearer.'

function bearerSubprotocolOf(header: string | undefined): Credential | undefined {
  const bearers = (header ?? '')
    .split(',')
    .map(offer => offer.trim())
    .filter(offer => offer.startsWith(bearerPrefix))
  const [bearer] = bearers
  if (bearer === undefined) return undefined
  if (bearers.length > 1) throw refused('there are several subprotocols that begin with bearer.')
  return tokenOf(bearer.slice(bearerPrefix.length), 'Sec-WebSocket-Protocol: bearer.')
}

/** A logout may leave an empty cookie. Of two with the same name, another host of the site may have set one (RFC 6265 §8.6). */
function cookieOf(headers: IncomingHttpHeaders, name: string | undefined): Credential | undefined {
  if (name === undefined) return undefined
  const values = new Set(cookiesOf(headers.cookie ?? '', name))
  const [value] = values
  if (value === undefined) return undefined
  if (!isFromPage(headers)) throw new GatewayError('origin-refused', { hint: 'a cookie counts only with Origin' })
  if (values.size > 1) throw refused(`there are several cookies called ${name}`)
  return tokenOf(value, 'the cookie')
}

function cookiesOf(header: string, name: string): string[] {
  return header.split(';').flatMap(pair => {
    const equals = pair.indexOf('=')
    const value = pair
      .slice(equals + 1)
      .trim()
      .replace(/^"(.*)"$/, '$1')
    return equals !== -1 && pair.slice(0, equals).trim() === name && value !== '' ? [value] : []
  })
}

function isFromPage(headers: IncomingHttpHeaders): boolean {
  return headers.origin !== undefined || headers['sec-fetch-site'] === 'same-origin'
}
