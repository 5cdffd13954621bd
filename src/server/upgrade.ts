import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Client, ClientResolver } from '../access/client-address.js'
import type { DetailReaders } from '../access/detail-readers.js'
import { anyHost, type HostPolicy } from '../access/hosts.js'
import type { ConnectionLimits } from '../access/limits.js'
import type { SiteRules } from '../access/site-rules.js'
import type { UserLimits } from '../access/user-limits.js'
import { type ConnectionLog, LazyLogger } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import { anonymous } from '../base/identity.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import { requireServedHost } from '../http/host-header.js'
import { originRefusal } from '../http/origin-refusal.js'
import { ParameterError } from '../http/parameters.js'
import { pathOf } from '../http/request-target.js'
import type { Upgrade, UpgradeIdentity, UpgradeRoute } from '../http/upgrade-route.js'
import { takeOverWhileCounted } from './admission.js'
import { checkHandshake, checkUpgradeRequest } from './handshake.js'
import type { HttpsLocation } from './https-redirect.js'
import { writeRefusal } from './refusal.js'
import { RefusalLog } from './refusal-log.js'

export interface UpgradeRouterOptions {
  /** The first that matches is taken. */
  readonly routes: readonly UpgradeRoute[]
  readonly site?: SiteRules | undefined
  /** Where plain requests are sent on to; left out where they are served. */
  readonly httpsLocation?: HttpsLocation | undefined
  readonly limits: ConnectionLimits
  /** Counts the connections of those who are known. */
  readonly users: UserLimits
  /** The longest request target, in bytes. */
  readonly urlLength: number
  readonly resolveClient: ClientResolver
  /** Clients that are told the addresses of brokers; left out for none. */
  readonly seesDetails?: DetailReaders
  /** Default: every host. */
  readonly servesHost?: HostPolicy
  /** Names one connection in the log. */
  readonly nextId: () => string
  readonly log: Logger
  readonly metrics: Metrics
}

/** Why a handshake would be refused, and the headers of the response. */
export interface UpgradeRefusal {
  readonly ending: GatewayError
  readonly headers: Readonly<Record<string, string>>
}

/** Leads WebSocket handshakes to their endpoint, or refuses them. */
export class UpgradeRouter {
  readonly #options: UpgradeRouterOptions
  readonly #refusals = new RefusalLog()
  #shuttingDown = false

  constructor(options: UpgradeRouterOptions) {
    this.#options = options
  }

  /** Whether there is a WebSocket endpoint at this path, that is not everywhere. */
  matches(path: string): boolean {
    return this.#options.routes.some(route => route.isEverywhere !== true && route.matches(path))
  }

  /**
   * The refusal that a handshake would get that has the URL, page and credentials of this plain request: a browser does not show
   * a page why its handshake was refused, so pages ask once more, without one. Counts as a new connection of its address.
   *
   * @returns `undefined` where nothing that a plain request has is against it
   * @throws {ParameterError} for a query that is not right
   */
  async refusalOf(request: IncomingMessage): Promise<UpgradeRefusal | undefined> {
    const client = this.#options.resolveClient(request)
    const origin = originOf(request, client)
    let identity: UpgradeIdentity | undefined
    try {
      const { route, release } = this.#admit(request, pathOf(request.url), client, origin)
      release()
      identity = route.identity
      const found = await identity?.find(request, client)
      if (found !== undefined) this.#options.users.admit(found.user)()
      route.checkQuery?.(request, found ?? anonymous)
      return undefined
    } catch (error) {
      if (error instanceof ParameterError) throw error
      const ending = GatewayError.from(error)
      // Browsers send no Origin with a page's GET, so this says nothing of its handshake.
      if (ending.reason === 'origin-refused' && origin === undefined) return undefined
      const challenge = identity?.challengeFor?.(request.headers)
      return { ending, headers: headersOf(ending, challenge === undefined ? identity : { challenge }) }
    }
  }

  /** From now on every handshake is refused with `shutting-down`. */
  shutDown(): void {
    this.#shuttingDown = true
  }

  /** Takes one `upgrade` event of an HTTP server. Never throws. */
  handle(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { resolveClient, nextId, log: parentLog } = this.#options
    // First of all: a reset while this is decided must not be an uncaught exception.
    socket.on('error', ignore)
    // The HTTP server's idle time is not the endpoint's.
    request.socket.setTimeout(0)

    const client = resolveClient(request)
    const path = pathOf(request.url)
    const connection = nextId()
    const log = new LazyLogger(parentLog, { connection, peer: client.address, path })
    const peer = {
      connection,
      address: client.address,
      port: client.port,
      localAddress: request.socket.localAddress ?? '',
      localPort: request.socket.localPort ?? 0,
    }
    const refuse = this.#refuser(socket, client, log)
    try {
      const location = this.#options.httpsLocation?.(client, request.url ?? '/')
      if (location !== undefined) {
        refuse(new GatewayError('https-required'), { Location: location })
        return
      }
      checkUpgradeRequest(request)
      const { route, release } = this.#admit(request, path, client, request.headers.origin)
      const upgrade = { request, socket, head, peer, path, log, refuse }
      const { identity } = route
      const takeOver = (): void | Promise<void> => {
        checkHandshake(request)
        route.check?.(request)
        return identity ? this.#acceptKnown(route, identity, upgrade, client) : route.accept(upgrade)
      }
      takeOverWhileCounted(socket, release, takeOver).catch(error => {
        const ending = GatewayError.from(error)
        refuse(ending, headersOf(ending, identity))
      })
    } catch (error) {
      refuse(GatewayError.from(error))
    }
  }

  /** Leads the handshake on once it is known who it is from, as far as that is asked. */
  async #acceptKnown(route: UpgradeRoute, identity: UpgradeIdentity, upgrade: Upgrade, client: Client): Promise<void> {
    const { request, socket, log } = upgrade
    const found = await identity.find(request, client)
    // They have left meanwhile: no broker is dialled, and nobody would release what counts them.
    if (socket.destroyed) return
    if (found === undefined) return route.accept(upgrade)
    socket.once('close', this.#options.users.admit(found.user))
    log.setBindings({ user: found.user, identity: found.source })
    return route.accept({ ...upgrade, peer: { ...upgrade.peer, identity: found } })
  }

  /** The endpoint, once every guard has let the request through, and what gives the connection's place back. */
  #admit(
    request: IncomingMessage,
    path: string,
    client: Client,
    origin: string | undefined,
  ): { route: UpgradeRoute; release: () => void } {
    if (this.#shuttingDown) throw new GatewayError('shutting-down')
    requireServedHost(request, client.host, this.#options.servesHost ?? anyHost)
    // Before a pattern of the configuration has to read it.
    if ((request.url?.length ?? 0) > this.#options.urlLength) throw new GatewayError('url-too-long')

    const { site, routes } = this.#options
    site?.checkAddress(client.address)
    site?.checkPath(path)
    const port = request.socket.localPort
    const route = routes.find(candidate => candidate.matches(path) && candidate.isAt?.(client.host, port) !== false)
    if (route === undefined) throw new GatewayError('unknown-path')
    if (route.allowsAddress?.(client.address) === false) throw new GatewayError('address-refused')

    if (!route.allowsOrigin(origin, client.host, client.secure)) {
      throw originRefusal(origin, client.host, route.originsOption ?? 'tunnels.origins')
    }

    return { route, release: this.#options.limits.admit(client.address) }
  }

  #refuser(socket: Duplex, client: Client, log: ConnectionLog): Upgrade['refuse'] {
    let refused = false
    return (ending, headers) => {
      if (refused) return
      refused = true
      this.#options.metrics.refused(ending.reason)
      this.#refusals.write(log, ending, { status: ending.httpStatus })
      const seesDetails = this.#options.seesDetails?.(client) === true
      writeRefusal(socket, ending, headers, seesDetails ? ending.detailedText : ending.text)
    }
  }
}

/** The page that a plain request is of: browsers say so in another header where it is one of this origin (Fetch Metadata). */
function originOf({ headers }: IncomingMessage, { host, secure }: Client): string | undefined {
  if (headers.origin !== undefined || headers['sec-fetch-site'] !== 'same-origin') return headers.origin
  return `${secure ? 'https' : 'http'}://${host ?? ''}`
}

/** What a refusal has to say besides: what is to be presented (RFC 9110 §15.5.2), or which version (RFC 6455 §4.4). */
function headersOf(
  { httpStatus, reason }: GatewayError,
  identity: Pick<UpgradeIdentity, 'challenge'> | undefined,
): Record<string, string> {
  if (reason === 'unsupported-version') return { 'Sec-WebSocket-Version': '13' }
  const challenge = httpStatus === 401 ? (identity?.challenge ?? '') : ''
  return challenge === '' ? {} : { 'WWW-Authenticate': challenge }
}

/** It stays for as long as the connection, and must not hold anything; whoever takes the connection over listens too. */
function ignore(): void {}
