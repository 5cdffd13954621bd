import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { Authenticator } from './authenticator.js'
import { mqttCredential } from './credentials.js'
import { isOver, onOver } from './expiry.js'
import type { Permissions, TopicRules } from './topic-rules.js'
import type { UserLimits } from './user-limits.js'

/** What a CONNECT says about who sends it. */
export interface ConnectRequest {
  readonly clientId: string
  readonly username: string | undefined
  readonly password: Uint8Array | undefined
  /** Whether the client has left meanwhile. */
  readonly isGone?: (() => boolean) | undefined
}

/** Where a connection comes from. */
export interface ConnectOrigin {
  readonly address: string
  /** Who it was found to be at the upgrade. */
  readonly identity?: Identity
}

/** Who was let in with a CONNECT, and what they may do. */
export interface Admitted extends Permissions {
  readonly identity: Identity
  /** Call when the connection is over. */
  release(): void
}

export interface MqttAuthorizerOptions {
  readonly authenticator: Authenticator
  readonly rules: TopicRules
  readonly users: UserLimits
}

/**
 * Judges each CONNECT for the embedded broker.
 *
 * User name and password in CONNECT are what counts, also where the upgrade found out who it is; where CONNECT has neither,
 * the upgrade's identity does. Where they differ in the user, the connection counts to both (`limits.connectionsPerUser`).
 */
export class MqttAuthorizer {
  readonly #options: MqttAuthorizerOptions

  constructor(options: MqttAuthorizerOptions) {
    this.#options = options
  }

  /**
   * @param revoke called when who it is no longer holds; not after `release`
   * @throws {Ending} as `Authenticator.authenticate`; `identity-expired`, `too-many-from-user`
   */
  async admit(connect: ConnectRequest, from: ConnectOrigin, revoke: (ending: GatewayError) => void): Promise<Admitted> {
    const { rules, users } = this.#options
    const identity = await this.#identify(connect, from)
    // The upgrade has counted its own.
    const leave = users.admit(identity.user === from.identity?.user ? undefined : identity.user)
    const stop = onOver(identity, revoke)
    const release = (): void => {
      stop()
      leave()
    }
    return { ...rules.for(identity, connect.clientId), identity, release }
  }

  #identify(
    { clientId, username, password, isGone }: ConnectRequest,
    from: ConnectOrigin,
  ): Identity | Promise<Identity> {
    const credential = mqttCredential(username, password)
    const { identity } = from
    if (credential === undefined && identity !== undefined && identity.source !== 'none') {
      if (isOver(identity)) throw new GatewayError('identity-expired')
      return identity
    }
    const attempt = { credential, transport: 'mqtt', address: from.address, clientId, isGone } as const
    return this.#options.authenticator.authenticate(attempt)
  }
}
