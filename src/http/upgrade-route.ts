import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Authenticator } from '../access/authenticator.js'
import type { Client } from '../access/client-address.js'
import type { OriginPolicy } from '../access/origins.js'
import type { ConnectionLog } from '../base/connection-log.js'
import type { Identity } from '../base/identity.js'
import type { Peer } from '../broker/broker.js'
import type { OriginsOption } from './origin-refusal.js'
import { attemptOf, type CredentialOptions } from './request-identity.js'

/** A WebSocket handshake that passed all checks of the gateway, for its endpoint to answer. */
export interface Upgrade {
  readonly request: IncomingMessage
  readonly socket: Duplex
  /** Bytes that the client sent after the request's headers. */
  readonly head: Buffer
  /** `Sec-WebSocket-Key` */
  readonly key: string
  /** From `UpgradeRoute.chooseSubprotocol`. */
  readonly subprotocol: string | undefined
  readonly peer: Peer
  readonly path: string
  /** Bound to the connection's id, peer and path. */
  readonly log: ConnectionLog
}

/** Identifies the client of a WebSocket handshake. */
export interface UpgradeIdentity {
  /** `WWW-Authenticate` of a 401; empty for none. */
  readonly challenge: string
  /** The same for a plain request, which may be a script's; default: `challenge`. */
  challengeFor?(headers: IncomingHttpHeaders): string
  /**
   * The client's identity; `undefined` without credentials where none are needed: the broker reads those of the CONNECT, or admits anybody.
   *
   * @throws {GatewayError} as `readCredential` and `Authenticator.authenticate`
   */
  find(request: IncomingMessage, client: Client): Promise<Identity> | undefined
}

/**
 * Clients that an endpoint admits: named users, everybody that the gateway admits (users and, where allowed, anonymous clients), or also
 * clients without credentials, because the broker authenticates them.
 */
export type AdmittedClients = 'user' | 'admitted' | 'anybody'

/** @param places where requests may carry credentials */
export function createUpgradeIdentity(
  authenticator: Authenticator,
  places: CredentialOptions,
  admitted: AdmittedClients,
): UpgradeIdentity {
  return {
    challenge: authenticator.challenge,
    challengeFor: headers => authenticator.challengeFor(headers),
    find: (request, client) => {
      const attempt = attemptOf(request, client, 'websocket', places)
      if (admitted !== 'anybody') return authenticator.authenticate(attempt, { requireUser: admitted === 'user' })
      // Headers that a webhook checks are credentials, too.
      const hasCredentials = attempt.credential !== undefined || attempt.headers !== undefined
      return hasCredentials ? authenticator.identify(attempt) : undefined
    },
  }
}

/** One WebSocket endpoint. */
export interface UpgradeRoute {
  matches(path: string): boolean
  /** Whether it matches every path, so that requests without a handshake are for other routes. Default: false. */
  readonly isEverywhere?: boolean | undefined
  /**
   * Whether the endpoint is at this host and port; default: at all of them.
   *
   * @param host as in the request, with its port
   * @param port on which the connection came in; `undefined` for a Unix socket
   */
  isAt?(host: string | undefined, port: number | undefined): boolean
  /** Whether a client of this address may connect; default: every client. */
  allowsAddress?(address: string): boolean
  /** Pages that may connect. */
  readonly allowsOrigin: OriginPolicy
  /** The option that lists them, for refusals; default: `tunnels.origins`. */
  readonly originsOption?: OriginsOption
  /**
   * Chooses the subprotocol of the connection; `undefined` for none, which is the default.
   *
   * @param offered in the client's order of preference
   * @throws {GatewayError} `unsupported-subprotocol`, `subprotocol-required`
   */
  chooseSubprotocol?(offered: readonly string[]): string | undefined
  /**
   * Checks a valid handshake before the client is identified.
   *
   * @throws {GatewayError} such as `invalid-parameter`
   */
  check?(request: IncomingMessage): void
  /**
   * Checks the URL's query, and that the client may have what it requests.
   *
   * @throws {ParameterError | GatewayError} such as `topic-refused`
   */
  checkQuery?(request: IncomingMessage, identity: Identity): void
  /** Left out where clients are not identified. */
  readonly identity?: UpgradeIdentity | undefined
  /** Completes the handshake. An error is answered with its HTTP status, so there must be none after the 101. */
  accept(upgrade: Upgrade): void | Promise<void>
}
