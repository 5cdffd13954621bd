import type { IncomingHttpHeaders } from 'node:http'
import type { HostPolicy } from '../access/hosts.js'
import { GatewayError } from '../base/errors.js'

/** The host of a request, HTTP/1.1 or HTTP/2. */
export interface RequestForHost {
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly socket: { readonly remoteAddress?: string | undefined }
}

/**
 * Requires that the host of a request is served.
 *
 * @param host as `Client.host`
 * @throws {GatewayError} `bad-request` for more than one `Host` (RFC 9112 §3.2), or one that is not `:authority` (RFC 9113 §8.3.1);
 *   `host-refused`
 */
export function requireServedHost(request: RequestForHost, host: string | undefined, serves: HostPolicy): void {
  const { headers, rawHeaders } = request
  let count = 0
  for (let index = 0; index < rawHeaders.length; index += 2) if (isHost(rawHeaders[index])) count += 1
  const authority = headers[':authority']
  if (count > 1 || (count === 1 && authority !== undefined && authority !== headers.host)) {
    throw new GatewayError('bad-request', { hint: 'it has more than one Host' })
  }
  if (serves(request, host)) return
  const hint = `Host is ${host ?? 'missing'}; a proxy in front has to pass on the Host of the address bar`
  throw new GatewayError('host-refused', { hint, cause: `Host: ${host}` })
}

function isHost(name: string | undefined): boolean {
  return name?.length === 4 && name.toLowerCase() === 'host'
}
