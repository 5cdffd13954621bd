import type { IncomingHttpHeaders } from 'node:http'
import { GatewayError } from '../base/errors.js'
import { anonymous, type Identity, identityOf, isUserName } from '../base/identity.js'
import type { SharedState } from '../storage/shared-state.js'
import type { ClientCertificate } from './client-certificate.js'
import type { Credential } from './credentials.js'
import { isExpired } from './expiry.js'
import { FailedLoginLimiter } from './failed-logins.js'
import type { Passwords } from './passwords.js'
import type { Tickets } from './tickets.js'
import type { Tokens } from './tokens.js'
import type { Webhook, WebhookRequest } from './webhook.js'

/** A connection attempt, or a request. */
export interface AuthenticationRequest extends Omit<WebhookRequest, 'user' | 'password' | 'token'> {
  /** `undefined` for none. */
  readonly credential: Credential | undefined
  /** Whether the client has closed its connection meanwhile; omitted if that is unknown. */
  readonly isGone?: (() => boolean) | undefined
}

/** Verifies credentials as the configuration says. */
export interface Verifiers {
  readonly passwords?: Passwords | undefined
  readonly tokens?: Tokens | undefined
  readonly webhook?: Webhook | undefined
  readonly acceptsCertificates: boolean
  /** Whether clients without credentials are admitted. */
  readonly allowsAnonymous: boolean
}

export interface AuthenticatorOptions extends Verifiers {
  readonly tickets: Tickets
  /** Counts wrong passwords of several gateways or workers. */
  readonly state?: SharedState | undefined
  /** Milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number
  /** Milliseconds since any moment, never going back, for the limit of failed logins. Default: `performance.now`. */
  readonly clock?: () => number
}

/** A JWT begins with a JSON object in base64url. */
const tokenStart = /^eyJ[\w-]*\.[\w-]+\.[\w-]+$/

/**
 * Authenticates clients. Each kind of credential has one verifier:
 * - ticket: the issued tickets
 * - token, also as a password: the keys of `jwt`; without `jwt`, the webhook
 * - user and password: the password file; for users who are not in it, the webhook
 * - client certificate: its CA, during the TLS handshake
 * - none: the webhook; without one, the client is anonymous
 *
 * An invalid credential is refused: it never makes a client anonymous.
 */
export class Authenticator {
  #options: AuthenticatorOptions
  readonly #now: () => number
  readonly #failedLogins: FailedLoginLimiter

  constructor(options: AuthenticatorOptions) {
    this.#options = options
    this.#failedLogins = new FailedLoginLimiter({ state: options.state, now: options.clock })
    this.#now = options.now ?? Date.now
  }

  /** Applies other verifiers. Tickets, and the counts of wrong passwords, stay. */
  configure(verifiers: Verifiers): void {
    this.#options = { ...this.#options, ...verifiers }
  }

  /**
   * Whether a client that was admitted with this identity would still be, as far as its kind of credential goes: passwords have their revocation.
   *
   * @returns the refusal; `undefined` for none
   */
  refusalOf({ user, source }: Identity): GatewayError | undefined {
    const { tokens, webhook, allowsAnonymous } = this.#options
    if (source === 'webhook' && !webhook) return new GatewayError('identity-expired')
    if (source === 'token' && !tokens) return new GatewayError('identity-expired')
    if (user === undefined && source !== 'webhook' && !allowsAnonymous) return new GatewayError('identity-required')
    return undefined
  }

  /** The value of `WWW-Authenticate` in a 401 response (RFC 9110 §11.6.1). */
  get challenge(): string {
    return this.#challenge('Basic')
  }

  /**
   * The same for a request that a script may have made: `Basic` would have its browser open a login dialog; with an unknown scheme,
   * the browser leaves the response to the script.
   */
  challengeFor(headers: IncomingHttpHeaders): string {
    return this.#challenge(isScriptRequest(headers) ? 'xBasic' : 'Basic')
  }

  #challenge(basicScheme: string): string {
    const { passwords, tokens, webhook } = this.#options
    const basic =
      passwords !== undefined || webhook !== undefined ? [`${basicScheme} realm="mqway", charset="UTF-8"`] : []
    const bearer = tokens !== undefined || webhook !== undefined ? ['Bearer realm="mqway"'] : []
    return [...bearer, ...basic].join(', ')
  }

  /**
   * Identifies a client, and checks that it is admitted: with a user name, or anonymous where that is allowed.
   *
   * @param options `requireUser` to admit only clients with a user name
   * @throws {GatewayError} as `identify`, and `identity-required`
   */
  async authenticate(request: AuthenticationRequest, options: { requireUser?: boolean } = {}): Promise<Identity> {
    const identity = await this.identify(request)
    if (identity.user !== undefined) return identity
    // The webhook has admitted this client without a name.
    const admitted = identity.source === 'webhook' || this.#options.allowsAnonymous
    if (options.requireUser === true || !admitted) throw new GatewayError('identity-required')
    return identity
  }

  /**
   * Verifies the credential, if there is one. @returns the identity, or `anonymous`, whether that is allowed or not
   *
   * @throws {GatewayError} `identity-refused`, `identity-unavailable` or `too-many-attempts`
   */
  async identify(request: AuthenticationRequest): Promise<Identity> {
    const identity = await this.#verify(request)
    if (isExpired(identity, this.#now())) throw refused('they have expired')
    return identity
  }

  #verify(request: AuthenticationRequest): Identity | Promise<Identity> {
    const { credential, isGone, ...query } = request
    switch (credential?.kind) {
      case undefined:
        return this.#options.webhook?.query(query) ?? anonymous
      case 'ticket':
        return this.#options.tickets.redeem(credential.ticket)
      case 'token':
        return this.#verifyToken(credential.token, query)
      case 'password':
        return this.#verifyPassword(credential, query, isGone)
      case 'certificate':
        return this.#verifyCertificate(credential.certificate)
    }
  }

  #verifyToken(token: string, query: WebhookRequest): Promise<Identity> {
    const { tokens, webhook } = this.#options
    if (tokens !== undefined) return tokens.verify(token)
    if (webhook !== undefined) return webhook.query({ ...query, token })
    throw refused('tokens are not accepted here')
  }

  async #verifyPassword(
    given: { user: string; password: string },
    query: WebhookRequest,
    isGone: AuthenticationRequest['isGone'],
  ): Promise<Identity> {
    const { passwords, tokens, webhook } = this.#options
    const { user, password } = given
    // Client libraries insist on a user name beside a token; the token names the user.
    if (tokens !== undefined && tokenStart.test(password)) return tokens.verify(password)
    if (passwords === undefined && webhook === undefined) throw refused('passwords are not accepted here')
    const cached = passwords?.cached(user, password)
    if (cached !== undefined) return cached

    const verify = async (): Promise<Identity> => {
      const result = (await passwords?.verify(user, password, query.address)) ?? 'unknown-user'
      if (typeof result === 'object') return result
      if (result === 'wrong' || webhook === undefined) throw refused('wrong user name or password')
      return webhook.query({ ...query, user, password })
    }
    return this.#failedLogins.run(query.address, verify, isGone)
  }

  #verifyCertificate({ user, problem, expires }: ClientCertificate): Identity {
    if (!this.#options.acceptsCertificates) throw refused('client certificates are not accepted here')
    if (problem !== undefined) throw refused(`the client certificate is not valid (${problem})`)
    if (user === undefined || !isUserName(user)) throw refused('the client certificate has no user name')
    return identityOf(user, 'certificate', { expires })
  }
}

/** Requests of `fetch`, `EventSource` and `XMLHttpRequest` (Fetch Metadata §2.2); without TLS, browsers send no such header. */
function isScriptRequest(headers: IncomingHttpHeaders): boolean {
  const mode = headers['sec-fetch-mode']
  return mode === 'cors' || mode === 'same-origin' || headers['x-requested-with'] !== undefined
}

function refused(hint: string): GatewayError {
  return new GatewayError('identity-refused', { hint })
}
