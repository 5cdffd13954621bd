import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'
import type { Authenticator } from './authenticator.js'
import { mqttCredential } from './credentials.js'
import { isExpired, onExpired } from './expiry.js'
import type { Permissions, TopicRules } from './topic-rules.js'
import type { UserLimits } from './user-limits.js'

/** The identifying fields of a CONNECT. */
export interface ConnectRequest {
  readonly clientId: string
  readonly username: string | undefined
  readonly password: Uint8Array | undefined
  /** Whether the client has closed its connection meanwhile. */
  readonly isGone?: (() => boolean) | undefined
}

/** The origin of a connection. */
export interface ConnectOrigin {
  readonly address: string
  /** The identity from the upgrade request. */
  readonly identity?: Identity
}

/** An admitted client, with its permissions. */
export interface AdmittedClient extends Permissions {
  readonly identity: Identity
  /** Call when the connection is closed. */
  release(): void
}

export interface MqttAuthorizerOptions {
  readonly authenticator: Authenticator
  readonly rules: TopicRules
  readonly users: UserLimits
}

/**
 * Authenticates each CONNECT for the embedded broker.
 *
 * User name and password of the CONNECT take precedence over the identity from the upgrade request. If the users differ, the connection
 * counts for both (`limits.connectionsPerUser`).
 */
export class MqttAuthorizer {
  readonly #options: MqttAuthorizerOptions

  constructor(options: MqttAuthorizerOptions) {
    this.#options = options
  }

  /**
   * @param revoke called when the identity expires or is revoked; not after `release`
   * @throws {GatewayError} as `Authenticator.authenticate`; `identity-expired`, `too-many-from-user`
   */
  async admit(
    connect: ConnectRequest,
    from: ConnectOrigin,
    revoke: (error: GatewayError) => void,
  ): Promise<AdmittedClient> {
    const { rules, users } = this.#options
    const identity = await this.#identify(connect, from)
    // The upgrade has counted its own user.
    const releaseUser = users.admit(identity.user === from.identity?.user ? undefined : identity.user)
    const stopWatching = onExpired(identity, revoke)
    const release = (): void => {
      stopWatching()
      releaseUser()
    }
    return new LivePermissions({ rules, identity, clientId: connect.clientId, release })
  }

  /** As `Authenticator.refusalOf`. */
  refusalOf(identity: Identity): GatewayError | undefined {
    return this.#options.authenticator.refusalOf(identity)
  }

  #identify(
    { clientId, username, password, isGone }: ConnectRequest,
    from: ConnectOrigin,
  ): Identity | Promise<Identity> {
    const credential = mqttCredential(username, password)
    const { identity } = from
    if (credential === undefined && identity !== undefined && identity.source !== 'none') {
      if (isExpired(identity)) throw new GatewayError('identity-expired')
      return identity
    }
    const request = { credential, transport: 'mqtt', address: from.address, clientId, isGone } as const
    return this.#options.authenticator.authenticate(request)
  }
}

interface LivePermissionsOptions {
  readonly rules: TopicRules
  readonly identity: Identity
  readonly clientId: string
  readonly release: () => void
}

/** The permissions of one connection under the current rules. */
class LivePermissions implements AdmittedClient {
  readonly identity: Identity
  readonly release: () => void
  readonly #rules: TopicRules
  readonly #clientId: string
  #permissions: Permissions
  #version: number

  constructor({ rules, identity, clientId, release }: LivePermissionsOptions) {
    this.identity = identity
    this.release = release
    this.#rules = rules
    this.#clientId = clientId
    this.#permissions = rules.for(identity, clientId)
    this.#version = rules.version
  }

  get dropped(): readonly string[] {
    return this.#current.dropped
  }

  mayPublish(topic: string): boolean {
    return this.#current.mayPublish(topic)
  }

  maySubscribe(filter: string): boolean {
    return this.#current.maySubscribe(filter)
  }

  mayRead(topic: string): boolean {
    return this.#current.mayRead(topic)
  }

  get #current(): Permissions {
    if (this.#version !== this.#rules.version) {
      this.#version = this.#rules.version
      this.#permissions = this.#rules.for(this.identity, this.#clientId)
    }
    return this.#permissions
  }
}
