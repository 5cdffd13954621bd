import { parseHost } from '../access/origins.js'
import { GatewayError } from '../base/errors.js'

/** The option that lists the permitted origins. */
export type OriginsOption = 'tunnels.origins' | 'push.origins'

/**
 * The refusal of an origin, with the likely cause: unless told otherwise, nginx passes on a `Host` of its own, so that no page has the same origin.
 *
 * @param host of the request, as `Client.host`
 */
export function originRefusal(
  origin: string | undefined,
  host: string | undefined,
  option: OriginsOption,
): GatewayError {
  const cause = `Origin: ${origin ?? 'none'}; Host: ${host ?? 'none'}`
  if (origin === undefined) return new GatewayError('origin-refused', { hint: 'it has no Origin', cause })
  const proxy = isOfHost(origin, host) ? '' : `; Host is ${host ?? 'missing'}: a proxy in front has to pass Host on`
  return new GatewayError('origin-refused', { hint: `${option} does not allow ${origin}${proxy}`, cause })
}

/** Whether an origin has this host, on any port. */
function isOfHost(origin: string, host: string | undefined): boolean {
  const asked = host === undefined ? undefined : parseHost(host)
  return !URL.canParse(origin) || (asked !== undefined && new URL(origin).hostname === asked.host)
}
