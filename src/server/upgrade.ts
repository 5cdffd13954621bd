import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Client, ClientResolver } from '../access/client-address.js'
import type { DetailReaders } from '../access/detail-readers.js'
import { anyHost, type HostPolicy } from '../access/hosts.js'
import type { ConnectionLimits } from '../access/limits.js'
import type { SiteRules } from '../access/site-rules.js'
import type { UserLimits } from '../access/user-limits.js'
import { LazyLogger } from '../base/connection-log.js'
import { GatewayError } from '../base/errors.js'
import { anonymous } from '../base/identity.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { AccessEntry, AccessLog } from '../http/access-log.js'
import { requireServedHost } from '../http/host-header.js'
import { originRefusal } from '../http/origin-refusal.js'
import { ParameterError } from '../http/parameters.js'
import { pathOf } from '../http/request-target.js'
import type { Upgrade, UpgradeIdentity, UpgradeRoute } from '../http/upgrade-route.js'
import { checkUpgradeRequest, readHandshake } from '../websocket/handshake.js'
import { acceptCounted } from './admission.js'
import type { HttpsLocation } from './https-redirect.js'
import { writeRefusal } from './refusal.js'
import { RefusalLog } from './refusal-log.js'

export interface UpgradeRouterOptions {
  /** The first match is taken. */
  readonly routes: readonly UpgradeRoute[]
  readonly site?: SiteRules | undefined
  /** Target of the redirect from http; left out if http is served. */
  readonly httpsLocation?: HttpsLocation | undefined
  readonly limits: ConnectionLimits
  /** Counts the connections of identified users. */
  readonly users: UserLimits
  /** The longest request target, in bytes. */
  readonly urlLength: number
  readonly resolveClient: ClientResolver
  /** Clients that may see the addresses of brokers; default: none. */
  readonly seesDetails?: DetailReaders
  /** Default: every host. */
  readonly servesHost?: HostPolicy
  /** Gets a line for each handshake, when its connection has ended; left out for none. */
  readonly accessLog?: AccessLog | undefined
  /** Makes the id of a connection in the log. */
  readonly nextId: () => string
  readonly log: Logger
  readonly metrics: Metrics
}

/** The refusal of a handshake, and the headers of the response. */
export interface UpgradeRefusal {
  readonly error: GatewayError
  readonly headers: Readonly<Record<string, string>>
}

/** A WebSocket handshake that is not checked yet. */
type PendingUpgrade = Omit<Upgrade, 'key' | 'subprotocol'> & {
  readonly client: Client
  readonly entry: AccessEntry | undefined
}

/** Checks WebSocket handshakes, identifies their clients, and passes them to their endpoints, or refuses them. */
export class UpgradeRouter {
  #options: UpgradeRouterOptions
  readonly #refusals = new RefusalLog()
  #shuttingDown = false

  constructor(options: UpgradeRouterOptions) {
    this.#options = options
  }

  /** Applies other routes and rules to the handshakes from now on. */
  configure(options: UpgradeRouterOptions): void {
    this.#options = options
  }

  /** Whether a WebSocket endpoint is at this path, and not at every path. */
  matches(path: string): boolean {
    return this.#options.routes.some(route => route.isEverywhere !== true && route.matches(path))
  }

  /**
   * The refusal of a handshake with the URL, page and credentials of this plain request: a browser does not show a page why its handshake was
   * refused, so pages repeat it as a plain request. Counts as a new connection of its address.
   *
   * @returns `undefined` where nothing in a plain request speaks against it
   * @throws {ParameterError} for an invalid query
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
    } catch (cause) {
      if (cause instanceof ParameterError) throw cause
      const error = GatewayError.from(cause)
      // Browsers send no Origin with a page's GET, so this does not apply to its handshake.
      if (error.reason === 'origin-refused' && origin === undefined) return undefined
      return { error, headers: refusalHeaders(error, identity?.challengeFor?.(request.headers) ?? identity?.challenge) }
    }
  }

  /** From now on every handshake is refused with `shutting-down`. */
  shutDown(): void {
    this.#shuttingDown = true
  }

  /** Handles one `upgrade` event of an HTTP server. Never throws. */
  handle(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { resolveClient, accessLog, nextId, log: parentLog } = this.#options
    // Before anything else: a reset during the handshake must not be an uncaught exception.
    socket.on('error', ignore)
    // The HTTP server's idle timeout does not apply to endpoints.
    request.socket.setTimeout(0)

    const client = resolveClient(request)
    const path = pathOf(request.url)
    const connection = nextId()
    const entry = accessLog?.beginUpgrade(request, socket)
    const log = new LazyLogger(parentLog, { connection, peer: client.address, path, requestId: entry?.id })
    const peer = {
      connection,
      address: client.address,
      port: client.port,
      localAddress: request.socket.localAddress ?? '',
      localPort: request.socket.localPort ?? 0,
    }
    void this.#upgrade({ request, socket, head, peer, path, log, client, entry })
  }

  async #upgrade(upgrade: PendingUpgrade): Promise<void> {
    const { request, socket, path, client } = upgrade
    let identity: UpgradeIdentity | undefined
    try {
      const location = this.#options.httpsLocation?.(client, request.url ?? '/')
      if (location !== undefined) {
        this.#refuse(upgrade, new GatewayError('https-required'), { Location: location })
        return
      }
      checkUpgradeRequest(request)
      const { route, release } = this.#admit(request, path, client, request.headers.origin)
      identity = route.identity
      await acceptCounted(socket, release, () => this.#accept(route, upgrade))
    } catch (cause) {
      const error = GatewayError.from(cause)
      this.#refuse(upgrade, error, refusalHeaders(error, identity?.challenge))
    }
  }

  /** Returns the endpoint once the request has passed every rule and limit, and a function that ends its count as a connection. */
  #admit(
    request: IncomingMessage,
    path: string,
    client: Client,
    origin: string | undefined,
  ): { route: UpgradeRoute; release: () => void } {
    if (this.#shuttingDown) throw new GatewayError('shutting-down')
    requireServedHost(request, client.host, this.#options.servesHost ?? anyHost)
    // Before a pattern of the configuration has to match it.
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

  /** Checks the handshake before it identifies the client: an invalid one costs no ticket, and no time to verify a password. */
  async #accept(route: UpgradeRoute, { client, entry, ...upgrade }: PendingUpgrade): Promise<void> {
    const { request, socket, log } = upgrade
    const { key, subprotocols } = readHandshake(request)
    const subprotocol = route.chooseSubprotocol?.(subprotocols)
    route.check?.(request)
    const identity = await route.identity?.find(request, client)
    // The client left meanwhile: no broker is dialled, and nothing would end its count as a connection of its user.
    if (socket.destroyed) return
    if (identity === undefined) return route.accept({ ...upgrade, key, subprotocol })
    socket.once('close', this.#options.users.admit(identity.user))
    if (entry) entry.user = identity.user
    log.setBindings({ user: identity.user, identity: identity.source })
    return route.accept({ ...upgrade, key, subprotocol, peer: { ...upgrade.peer, identity } })
  }

  #refuse(
    { socket, client, log, entry }: PendingUpgrade,
    error: GatewayError,
    headers: Readonly<Record<string, string>>,
  ): void {
    this.#options.metrics.refused(error.reason)
    this.#refusals.write(log, error, { status: error.httpStatus })
    const seesDetails = this.#options.seesDetails?.(client) === true
    if (entry) entry.status = error.httpStatus
    const all = entry ? { ...headers, 'X-Request-ID': entry.id } : headers
    writeRefusal(socket, error, all, seesDetails ? error.detailedText : error.text)
  }
}

/** The origin of a plain request's page: for one of this origin, browsers send another header (Fetch Metadata). */
function originOf({ headers }: IncomingMessage, { host, secure }: Client): string | undefined {
  if (headers.origin !== undefined || headers['sec-fetch-site'] !== 'same-origin') return headers.origin
  return `${secure ? 'https' : 'http'}://${host ?? ''}`
}

/** The required credentials (RFC 9110 §15.5.2), or WebSocket version (RFC 6455 §4.4). */
function refusalHeaders({ httpStatus, reason }: GatewayError, challenge = ''): Record<string, string> {
  if (reason === 'unsupported-version') return { 'Sec-WebSocket-Version': '13' }
  return httpStatus !== 401 || challenge === '' ? {} : { 'WWW-Authenticate': challenge }
}

/** Stays for as long as the connection, so it must not hold anything; the endpoint adds its own listener. */
function ignore(): void {}
