import type { IncomingHttpHeaders } from 'node:http'
import { normalizeAddress } from '../access/addresses.js'
import type { AuthenticationRequest } from '../access/authenticator.js'
import { type Client, isForwarded } from '../access/client-address.js'
import { type CertifiedSocket, type ClientCertificate, readClientCertificate } from '../access/client-certificate.js'
import { forwardedHeaders, readCredential } from '../access/credentials.js'
import type { AccessConfig } from '../config/access.js'
import { pathOf } from './request-target.js'

/** The parts of a request that carry credentials, HTTP/1.1 or HTTP/2. */
export interface PresentingRequest {
  readonly headers: IncomingHttpHeaders
  readonly url?: string | undefined
  readonly socket: { readonly remoteAddress?: string | undefined; readonly destroyed?: boolean }
}

/** The options of `access` about credentials; without `jwt`, cookies are ignored. */
export type CredentialOptions = Partial<Pick<AccessConfig, 'jwt' | 'clientCertificates' | 'webhook'>>

/**
 * The credentials of a request, for the authenticator. To be called after the check of its `Origin`.
 *
 * @throws {GatewayError} as `readCredential`
 */
export function attemptOf(
  request: PresentingRequest,
  client: Client,
  transport: 'http' | 'websocket',
  credentials: CredentialOptions,
): AuthenticationRequest {
  const { headers, url } = request
  const { jwt, clientCertificates, webhook } = credentials
  const certificate = clientCertificates && certificateOf(request, client, clientCertificates.user)
  const shown = forwardedHeaders(headers, webhook?.headers ?? [])
  return {
    credential: readCredential({ headers, url }, { cookie: jwt?.cookie, certificate }),
    transport,
    address: client.address,
    path: pathOf(url),
    origin: headers.origin,
    headers: Object.keys(shown).length === 0 ? undefined : shown,
    isGone: () => request.socket.destroyed === true,
  }
}

/** The client's own certificate, not that of a proxy. */
function certificateOf(
  { headers, socket }: PresentingRequest,
  client: Client,
  user: 'cn' | 'san',
): ClientCertificate | undefined {
  if (isForwarded(headers)) return undefined
  const own = socket.remoteAddress !== undefined && normalizeAddress(socket.remoteAddress) === client.address
  return own && isCertified(socket) ? readClientCertificate(socket, user) : undefined
}

function isCertified(socket: object): socket is CertifiedSocket {
  return 'getPeerCertificate' in socket && 'authorized' in socket
}
