import { parseHost } from '../access/origins.js'
import { GatewayError } from '../base/errors.js'

/** The option that lists the origins of an endpoint's pages. */
export type OriginsOption = 'tunnels.origins' | 'push.origins'

/**
 * The refusal of a page whose origin an option does not list, with the likely cause: nginx passes on a `Host` of its own unless it is told
 * otherwise, so that no page is of the same origin.
 *
 * @param host that the client asked for, as `Client.host`
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

/** Whether a page comes from the host that is asked for, on whatever port. */
function isOfHost(origin: string, host: string | undefined): boolean {
  const asked = host === undefined ? undefined : parseHost(host)
  return !URL.canParse(origin) || (asked !== undefined && new URL(origin).hostname === asked.host)
}
