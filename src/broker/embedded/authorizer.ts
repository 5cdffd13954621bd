import type { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { Peer } from '../broker.js'

/** What a CONNECT says about who sends it. */
export interface ConnectRequest {
  /** Empty where the client leaves it to the broker. */
  readonly clientId: string
  readonly username: string | undefined
  readonly password: Uint8Array | undefined
  /** Whether the client has left meanwhile. */
  readonly isGone?: (() => boolean) | undefined
}

/** Who was let in, and what they may do on this connection. */
export interface Rights {
  readonly identity: Identity
  /** Asked for each message that comes in, retained or not, and for a will. */
  mayPublish(topic: string): boolean
  /** Asked for each filter, also for those of a session that is taken up again. */
  maySubscribe(filter: string): boolean
  /** Asked for what waits in a session: it may have been put there under other rules. */
  mayRead(topic: string): boolean
  /** Call when the connection is over. */
  release(): void
}

/** Decides who may use a broker that is part of this program. */
export interface Authorizer {
  /**
   * Judges one CONNECT.
   *
   * @param revoke called when the connection has to end, because who it is no longer holds; not after `release`
   * @throws {Ending} `identity-required`, `identity-refused`, `identity-expired`, `identity-unavailable`,
   *   `too-many-attempts` or `too-many-from-user`
   */
  admit(connect: ConnectRequest, peer: Peer, revoke: (ending: GatewayError) => void): Promise<Rights>
}
