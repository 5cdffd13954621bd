import type { IncomingHttpHeaders } from 'node:http'
import { GatewayError } from '../base/errors.js'
import { anonymous, type Identity, isUserName, knownAs } from '../base/identity.js'
import type { ClientCertificate } from './client-certificate.js'
import type { Credential } from './credentials.js'
import { isOver } from './expiry.js'
import type { Passwords } from './passwords.js'
import type { Tickets } from './tickets.js'
import type { Tokens } from './tokens.js'
import type { Webhook, WebhookQuestion } from './webhook.js'
import { WrongPasswords } from './wrong-passwords.js'

/** One try to connect, or one request. */
export interface Attempt extends Omit<WebhookQuestion, 'user' | 'password' | 'token'> {
  /** What they present; `undefined` for nothing. */
  readonly credential: Credential | undefined
  /** Whether whoever asks has left meanwhile; left out where that is not known. */
  readonly isGone?: (() => boolean) | undefined
}

export interface AuthenticatorOptions {
  /** What is configured. */
  readonly passwords?: Passwords | undefined
  readonly tokens?: Tokens | undefined
  readonly webhook?: Webhook | undefined
  readonly tickets: Tickets
  readonly acceptsCertificates: boolean
  /** Whether somebody who presents nothing is let in. */
  readonly letsAnonymousIn: boolean
  /** The time in milliseconds since 1970. Default: the clock's. */
  readonly now?: () => number
  /** What the wrong passwords are timed by. Default: a clock that never goes back. */
  readonly clock?: () => number
}

/** The first characters of a JSON object in base64url: what each token begins with. */
const tokenStart = /^eyJ[\w-]*\.[\w-]+\.[\w-]+$/

/**
 * Finds out who somebody is. Each credential is for one judge:
 * - a ticket: the tickets
 * - a token, also one as a password: the keys of `jwt`; without `jwt`, the webhook
 * - user and password: the password file; for a user whom it does not have, the webhook
 * - a client certificate: whoever signed it
 * - nothing: the webhook; without one they are anonymous
 *
 * What is presented and not right is refused: nobody becomes anonymous by a mistake.
 */
export class Authenticator {
  readonly #options: AuthenticatorOptions
  readonly #now: () => number
  readonly #wrong: WrongPasswords

  constructor(options: AuthenticatorOptions) {
    this.#options = options
    this.#wrong = new WrongPasswords(options.clock)
    this.#now = options.now ?? Date.now
  }

  /** What a 401 has to say in `WWW-Authenticate` (RFC 9110 §11.6.1). */
  get challenge(): string {
    return this.#challenge('Basic')
  }

  /**
   * The same for a request that may be a script's: at `Basic` its browser would open a window for user and password, and
   * at a scheme that it does not know it leaves the answer to the script.
   */
  challengeFor(headers: IncomingHttpHeaders): string {
    return this.#challenge(isOfScript(headers) ? 'xBasic' : 'Basic')
  }

  #challenge(basicScheme: string): string {
    const { passwords, tokens, webhook } = this.#options
    const basic =
      passwords !== undefined || webhook !== undefined ? [`${basicScheme} realm="mqway", charset="UTF-8"`] : []
    const bearer = tokens !== undefined || webhook !== undefined ? ['Bearer realm="mqway"'] : []
    return [...bearer, ...basic].join(', ')
  }

  /**
   * Who it is, if they are let in: known, or anonymous where that is allowed.
   *
   * @param options `requireUser` to let in only those with a name, whatever else is allowed
   * @throws {Ending} as `identify`, and `identity-required`
   */
  async authenticate(attempt: Attempt, options: { requireUser?: boolean } = {}): Promise<Identity> {
    const identity = await this.identify(attempt)
    if (identity.user !== undefined) return identity
    // A webhook that lets somebody in without a name has said so.
    const admitted = identity.source === 'webhook' || this.#options.letsAnonymousIn
    if (options.requireUser === true || !admitted) throw new GatewayError('identity-required')
    return identity
  }

  /**
   * Who it is, or `anonymous`; whether they are let in is another question.
   *
   * @throws {Ending} `identity-refused`, `identity-unavailable` or `too-many-attempts`
   */
  async identify(attempt: Attempt): Promise<Identity> {
    const identity = await this.#judge(attempt)
    if (isOver(identity, this.#now())) throw refused('they have expired')
    return identity
  }

  #judge(attempt: Attempt): Identity | Promise<Identity> {
    const { credential, isGone, ...question } = attempt
    switch (credential?.kind) {
      case undefined:
        return this.#options.webhook?.ask(question) ?? anonymous
      case 'ticket':
        return this.#options.tickets.redeem(credential.ticket)
      case 'token':
        return this.#judgeToken(credential.token, question)
      case 'password':
        return this.#judgePassword(credential, question, isGone)
      case 'certificate':
        return this.#judgeCertificate(credential.certificate)
    }
  }

  #judgeToken(token: string, question: WebhookQuestion): Promise<Identity> {
    const { tokens, webhook } = this.#options
    if (tokens !== undefined) return tokens.verify(token)
    if (webhook !== undefined) return webhook.ask({ ...question, token })
    throw refused('tokens are not accepted here')
  }

  async #judgePassword(
    given: { user: string; password: string },
    question: WebhookQuestion,
    isGone: Attempt['isGone'],
  ): Promise<Identity> {
    const { passwords, tokens, webhook } = this.#options
    const { user, password } = given
    // The user name beside a token is what a client library insists on; who it is, the token says.
    if (tokens !== undefined && tokenStart.test(password)) return tokens.verify(password)
    if (passwords === undefined && webhook === undefined) throw refused('passwords are not accepted here')
    const recalled = passwords?.recall(user, password)
    if (recalled !== undefined) return recalled

    const judge = async (): Promise<Identity> => {
      const verdict = (await passwords?.verify(user, password, question.address)) ?? 'unknown-user'
      if (typeof verdict === 'object') return verdict
      if (verdict === 'wrong' || webhook === undefined) throw refused('wrong user name or password')
      return webhook.ask({ ...question, user, password })
    }
    return this.#wrong.judge(question.address, judge, isGone)
  }

  #judgeCertificate({ user, problem, expires }: ClientCertificate): Identity {
    if (!this.#options.acceptsCertificates) throw refused('client certificates are not accepted here')
    if (problem !== undefined) throw refused(`the client certificate is not valid (${problem})`)
    if (user === undefined || !isUserName(user)) throw refused('the client certificate has no user name')
    return knownAs(user, 'certificate', { expires })
  }
}

/** `fetch`, `EventSource` and `XMLHttpRequest` (Fetch Metadata, §2.2); without TLS browsers do not say so, scripts may. */
function isOfScript(headers: IncomingHttpHeaders): boolean {
  const mode = headers['sec-fetch-mode']
  return mode === 'cors' || mode === 'same-origin' || headers['x-requested-with'] !== undefined
}

function refused(hint: string): GatewayError {
  return new GatewayError('identity-refused', { hint })
}
