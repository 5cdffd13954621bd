import type { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { Peer } from '../broker.js'

/** Credentials of a CONNECT. */
export interface ConnectRequest {
  /** Empty if the broker is to choose it. */
  readonly clientId: string
  readonly username: string | undefined
  readonly password: Uint8Array | undefined
  /** Whether the client has closed its connection. */
  readonly isGone?: (() => boolean) | undefined
}

/** Identity and rights of an accepted connection. The rights may change while it is open. */
export interface Rights {
  readonly identity: Identity
  /** Called for each received message, and for a will. */
  mayPublish(topic: string): boolean
  /** Called for each topic filter, and for those of a resumed session. */
  maySubscribe(filter: string): boolean
  /** Called for each queued or retained message: it may be older than the current rules. */
  mayRead(topic: string): boolean
  /** Call when the connection is closed. */
  release(): void
}

/** Authenticates and authorizes the clients of the embedded broker. */
export interface Authorizer {
  /**
   * Authenticates one CONNECT.
   *
   * @param revoke called when the credentials expire or are revoked, to end the connection; not after `release`
   * @throws {GatewayError} `identity-required`, `identity-refused`, `identity-expired`, `identity-unavailable`,
   *   `too-many-attempts` or `too-many-from-user`
   */
  admit(connect: ConnectRequest, peer: Peer, revoke: (ending: GatewayError) => void): Promise<Rights>
  /** Why a client that was admitted with this identity no longer would be; `undefined` if it would. */
  refusalOf?(identity: Identity): GatewayError | undefined
}
