import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Client } from '../access/client-address.js'
import type { OriginPolicy } from '../access/origins.js'
import type { ConnectionLog } from '../base/connection-log.js'
import type { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { Peer } from '../broker/broker.js'
import type { OriginsOption } from './origin-refusal.js'

/** A WebSocket handshake that was let in; whoever has it answers it, or refuses it. */
export interface Upgrade {
  readonly request: IncomingMessage
  readonly socket: Duplex
  /** What the client sent after the request's headers already. */
  readonly head: Buffer
  readonly peer: Peer
  /** The path of the request, as `pathOf`. */
  readonly path: string
  /** Carries the connection's id, peer and path. */
  readonly log: ConnectionLog
  /** Answers with the ending's status, counts and logs it. Not after the 101; a second call does nothing. */
  refuse(ending: GatewayError, headers?: Readonly<Record<string, string>>): void
}

/** Finds out who a WebSocket handshake is from. */
export interface UpgradeIdentity {
  /** What a 401 says in `WWW-Authenticate`; empty for nothing. */
  readonly challenge: string
  /** The same for a plain request, which may be a script's; left out where it is the same. */
  challengeFor?(headers: IncomingHttpHeaders): string
  /**
   * Who it is; `undefined` where they present nothing and need not: a broker asks with the CONNECT, or lets anybody in.
   *
   * @throws {Ending} as `readCredential` and `Authenticator.authenticate`
   */
  find(request: IncomingMessage, client: Client): Promise<Identity> | undefined
}

/** One WebSocket endpoint. */
export interface UpgradeRoute {
  matches(path: string): boolean
  /** Whether it has every path there is, so that a request without a handshake is for something else. Default: false. */
  readonly isEverywhere?: boolean | undefined
  /**
   * Whether the endpoint is at this host and port; at all of them when left out.
   *
   * @param host as in the request, with its port
   * @param port on which the connection came in; `undefined` for a Unix socket
   */
  isAt?(host: string | undefined, port: number | undefined): boolean
  /** Whether a client of this address may connect; everybody when left out. */
  allowsAddress?(address: string): boolean
  /** Which pages may connect. */
  readonly allowsOrigin: OriginPolicy
  /** The option that lists them, for refusals; `tunnels.origins` when left out. */
  readonly originsOption?: OriginsOption
  /**
   * Whether the endpoint can take the handshake, as far as it says: asked before who it is from. Left out where a valid
   * handshake is enough.
   *
   * @throws {Ending} such as `unsupported-subprotocol`
   */
  check?(request: IncomingMessage): void
  /**
   * Checks the URL's query, and that the client may have what it asks for; left out where nothing in a URL can be refused.
   *
   * @throws {ParameterError | Ending} such as `topic-refused`
   */
  checkQuery?(request: IncomingMessage, identity: Identity): void
  /** Finds out who somebody is; left out where nobody is asked. */
  readonly identity?: UpgradeIdentity | undefined
  /** Takes the handshake over. What it throws or rejects with becomes a refusal, so it must not after the 101. */
  accept(upgrade: Upgrade): void | Promise<void>
}
