import { isDeepStrictEqual } from 'node:util'
import { compileTunnelConditions } from '../access/tunnel-conditions.js'
import { GatewayError } from '../base/errors.js'
import type { Config, TunnelConfig } from '../config/schema.js'
import type { RefusalOf } from '../tunnel/tunnels.js'
import type { GatewayContext } from './context.js'

/**
 * Why an open tunnel would no longer be admitted: its address, its endpoint, the endpoint's broker and addresses, and its identity. The page that opened it is
 * not known any more.
 */
export function reviewTunnels({ config, site, access, tunnelConfigs }: GatewayContext): RefusalOf {
  const known = new Map<TunnelConfig, Pick<Endpoint, 'tunnel' | 'allowsAddress'> | undefined>()
  const endpointOf = (former: TunnelConfig): Endpoint | undefined => {
    if (!known.has(former)) known.set(former, findEndpoint(config, former))
    return known.get(former)
  }
  return ({ options, peer: { address, identity } }) => {
    try {
      site.checkAddress(address)
    } catch (error) {
      return GatewayError.from(error)
    }
    const former = tunnelConfigs.get(options)
    // Those of the MQTT ports are of no endpoint.
    if (former) {
      const endpoint = endpointOf(former)
      if (!endpoint) return new GatewayError('configuration-changed')
      if (endpoint.allowsAddress?.(address) === false) return new GatewayError('address-refused')
      if (endpoint.tunnel.requireIdentity && identity?.user === undefined) return new GatewayError('identity-required')
    }
    return identity?.user === undefined ? undefined : access.authenticator?.refusalOf(identity)
  }
}

interface Endpoint {
  readonly tunnel: TunnelConfig
  readonly allowsAddress?: ((address: string) => boolean) | undefined
}

/** The tunnel with the same conditions and the same broker. */
function findEndpoint(config: Config, former: TunnelConfig): Endpoint | undefined {
  const tunnel = config.tunnels.find(candidate => isDeepStrictEqual(identityOf(candidate), identityOf(former)))
  return tunnel && { tunnel, allowsAddress: compileTunnelConditions(tunnel).allowsAddress }
}

function identityOf({ path, pathPrefix, pathSuffix, pathPattern, hosts, ports, broker }: TunnelConfig) {
  return { path, pathPrefix, pathSuffix, pathPattern, hosts, ports, broker }
}
