import { compileOrigins } from '../access/origins.js'
import { compileTunnelConditions } from '../access/tunnel-conditions.js'
import type { Broker } from '../broker/broker.js'
import type { TunnelConfig } from '../config/schema.js'
import { pathMatcher } from '../http/path-matcher.js'
import { createUpgradeIdentity, type UpgradeRoute } from '../http/upgrade-route.js'
import type { SocketEndpoint } from '../transports/socket/web-sockets.js'
import { acceptWebSocket, chooseSubprotocol } from '../tunnel/endpoints.js'
import type { TunnelOptions } from '../tunnel/tunnel.js'
import type { GatewayContext } from './context.js'

/** The routes of all configured tunnels, in the order of the configuration. */
export function openTunnelRoutes(context: GatewayContext): Promise<UpgradeRoute[]> {
  const { config, brokers } = context
  return Promise.all(
    config.tunnels.map(async tunnel => tunnelRoute(tunnel, await brokers.get(tunnel.broker ?? config.broker), context)),
  )
}

function tunnelRoute(tunnel: TunnelConfig, broker: Broker, context: GatewayContext): UpgradeRoute {
  const { config, access, tunnels } = context
  const { subprotocols, requireSubprotocol, forceSubprotocol, origins, requireOrigin, requireIdentity } = tunnel
  const own = tunnelOptions(context, tunnel)
  const endpoint = { broker, subprotocols, requireSubprotocol, forceSubprotocol, ...own }
  context.tunnelConfigs.set(endpoint, tunnel)
  return {
    matches: pathMatcher(tunnel),
    allowsOrigin: compileOrigins(origins, { requireOrigin }),
    ...compileTunnelConditions(tunnel),
    identity:
      access.authenticator &&
      createUpgradeIdentity(access.authenticator, config.access ?? {}, requireIdentity ? 'user' : 'anybody'),
    chooseSubprotocol: offered => chooseSubprotocol(endpoint, offered),
    accept: upgrade => acceptWebSocket(endpoint, tunnels, upgrade),
  }
}

/** The route of a plain WebSocket of the push side; the rules of the HTTP API apply to it. */
export function socketRoute(socket: SocketEndpoint, { config, access, gate }: GatewayContext): UpgradeRoute {
  return {
    ...socket,
    allowsOrigin: gate.allowsOrigin,
    originsOption: 'push.origins',
    identity: access.authenticator && createUpgradeIdentity(access.authenticator, config.access ?? {}, 'admitted'),
  }
}

/** Options that tunnels over WebSocket and over plain TCP share. */
export function tunnelOptions(
  { config, reservedClientIds }: GatewayContext,
  { inspectConnect, pingInterval }: Pick<TunnelOptions, 'inspectConnect' | 'pingInterval'>,
): TunnelOptions {
  const { connectTimeout, connectSize, closeTimeout } = config.limits
  return { connectTimeout, connectSize, closeTimeout, reservedClientIds, inspectConnect, pingInterval }
}
