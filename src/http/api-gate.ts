import type { FastifyReply, FastifyRequest } from 'fastify'
import type { AuthenticationRequest, Authenticator } from '../access/authenticator.js'
import type { Client } from '../access/client-address.js'
import { type ConnectionLimits, networkOf } from '../access/limits.js'
import type { OriginPolicy } from '../access/origins.js'
import type { RateLimits } from '../access/rate-limits.js'
import type { Permissions, TopicRules } from '../access/topic-rules.js'
import type { UserLimits } from '../access/user-limits.js'
import { GatewayError } from '../base/errors.js'
import { anonymous, type Identity } from '../base/identity.js'
import { admitOrigin, type OriginAdmission, type Preflight, sendPreflight, setOriginHeaders } from './cors.js'
import { attemptOf, type CredentialOptions } from './request-identity.js'
import { pathOf } from './request-target.js'

/** Who asks, and what they may do. */
export interface Caller {
  readonly client: Client
  readonly identity: Identity
  readonly permissions: Permissions
}

export interface ApiGateOptions extends OriginAdmission {
  /** `undefined` where nobody is asked who they are. */
  readonly authenticator: Authenticator | undefined
  readonly rules: TopicRules
  readonly credentials: CredentialOptions
  /** Requests of each address; left out for any number. */
  readonly requests?: RateLimits | undefined
  /** Count what stays open. */
  readonly connections: ConnectionLimits
  readonly users: UserLimits
}

/** How a route wants to be guarded. */
export interface Admission {
  /**
   * Whether no credential is looked at at all, so that what is answered is nobody's in particular: for answers that any
   * page can read, whoever's browser it runs in.
   */
  readonly withoutCredentials?: boolean
  /** Whether a GET takes something away, such as a message that is delivered once: no other site may lead its visitors there. */
  readonly takesAway?: boolean
}

/** What every request to the API passes, before anything of it is done: origin, rate, identity. */
export class ApiGate {
  readonly #options: ApiGateOptions

  constructor(options: ApiGateOptions) {
    this.#options = options
  }

  /** Which pages may ask. */
  get allowsOrigin(): OriginPolicy {
    return this.#options.allowsOrigin
  }

  /** Where a request comes from, for the log. */
  clientOf({ raw }: FastifyRequest): Client {
    return this.#options.resolveClient(raw)
  }

  /**
   * Lets a request in: at once where nobody is asked who they are.
   *
   * @throws {GatewayError} `origin-refused`, `too-many-requests`, and as `readCredential` and `Authenticator.authenticate`
   */
  admit(request: FastifyRequest, reply: FastifyReply, admission: Admission = {}): Caller | Promise<Caller> {
    const client = admitOrigin(request, reply, this.#options)
    if (admission.withoutCredentials !== true) refuseEmbedded(request, admission)
    this.#count(client)
    const { authenticator } = this.#options
    if (authenticator === undefined) return this.#callerOf(client, anonymous)
    return this.#identify(authenticator, request, reply, client, admission)
  }

  /**
   * What lets a request in that says the same as one that was let in: it counts, and who asks is found out anew.
   *
   * @returns throws as `admit`
   */
  readmission(request: FastifyRequest, { client }: Caller, admission: Admission = {}): () => Caller | Promise<Caller> {
    const { authenticator } = this.#options
    const attempt = authenticator && this.#attemptOf(request, client, admission)
    return () => {
      this.#count(client)
      if (!attempt) return this.#callerOf(client, anonymous)
      return authenticator.authenticate(attempt).then(identity => this.#callerOf(client, identity))
    }
  }

  /**
   * Counts what somebody asks for over a connection that is open already.
   *
   * @param requests how many of them it is like; more than are left leave their address in debt
   * @throws {GatewayError} `too-many-requests`
   */
  spend({ address }: Client, requests: number): void {
    const who = networkOf(address)
    requireNoWait(this.#options.requests?.wait(who))
    this.#options.requests?.spend(who, requests)
  }

  /** Tells a browser whether its page may read an answer that nothing else is asked for: a 404, a 405. */
  setOriginHeaders(request: FastifyRequest, reply: FastifyReply): void {
    setOriginHeaders(request, reply, this.clientOf(request), this.#options)
  }

  /** Answers a preflight. */
  preflight(request: FastifyRequest, reply: FastifyReply, preflight: Preflight): FastifyReply {
    return sendPreflight(request, reply, this.#options, preflight)
  }

  /**
   * Counts a request that stays open: an event stream, a poll that waits.
   *
   * @returns what gives its place back; calling it again does nothing
   * @throws {GatewayError} `too-many-connections`, `too-many-from-address`, `too-many-from-user`
   */
  hold({ client, identity }: Caller): () => void {
    const { connections, users } = this.#options
    const release = connections.hold(client.address)
    // Most are not known, and there may be ten thousand: 250 bytes less for each.
    if (identity.user === undefined) return release
    try {
      const leave = users.admit(identity.user)
      return () => {
        release()
        leave()
      }
    } catch (error) {
      release()
      throw error
    }
  }

  /** Who a fresh token is from, as a long-lived connection presents one. @throws {GatewayError} as `Authenticator.authenticate` */
  async identifyToken(token: string, client: Client): Promise<Identity> {
    const { authenticator } = this.#options
    if (authenticator === undefined) return anonymous
    const credential = { kind: 'token', token } as const
    return authenticator.authenticate({ credential, transport: 'http', address: client.address, path: '/' })
  }

  /** What somebody may do. */
  permissionsOf(identity: Identity): Permissions {
    return this.#options.rules.for(identity)
  }

  #callerOf(client: Client, identity: Identity): Caller {
    return { client, identity, permissions: this.#options.rules.for(identity) }
  }

  #count({ address }: Client): void {
    requireNoWait(this.#options.requests?.take(networkOf(address)))
  }

  #attemptOf(
    request: FastifyRequest,
    client: Client,
    { withoutCredentials = false }: Admission,
  ): AuthenticationRequest {
    return withoutCredentials
      ? nobodys(request, client)
      : attemptOf(request.raw, client, 'http', this.#options.credentials)
  }

  async #identify(
    authenticator: Authenticator,
    request: FastifyRequest,
    reply: FastifyReply,
    client: Client,
    admission: Admission,
  ): Promise<Caller> {
    try {
      const identity = await authenticator.authenticate(this.#attemptOf(request, client, admission))
      return this.#callerOf(client, identity)
    } catch (error) {
      const challenge = authenticator.challengeFor(request.headers)
      if (challenge !== '' && GatewayError.from(error).httpStatus === 401) reply.header('www-authenticate', challenge)
      throw error
    }
  }
}

/** @throws {GatewayError} `too-many-requests`, with how long that will be so */
function requireNoWait(milliseconds = 0): void {
  if (milliseconds > 0) throw new GatewayError('too-many-requests', { retryAfter: Math.ceil(milliseconds / 1000) })
}

/** What is known of a request whatever it presents. */
function nobodys({ url, headers: { origin } }: FastifyRequest, { address }: Client): AuthenticationRequest {
  return { credential: undefined, transport: 'http', address, path: pathOf(url), origin }
}

/** What a page is for that another one has put into itself (Fetch §2.2.5). */
const frames: ReadonlySet<unknown> = new Set(['iframe', 'frame', 'embed', 'object', 'fencedframe'])

/**
 * Refuses what another site's page has put into itself as an image, a script or a frame (Fetch Metadata §2), and, where something is taken
 * away, what it has led its visitor to by a link, a form or `window.open`: its browser says no `Origin` then, or for a form an opaque one, and adds certificates and passwords
 * that it knows. The page could not read the answer, and could yet use up the connections of its visitor, or a message that is told once.
 *
 * A page from a file asks with `fetch` (`cors`), which says `Origin: null`. Browsers leave these headers out towards hosts that are neither
 * loopback nor HTTPS.
 *
 * @throws {GatewayError} `origin-refused`
 */
function refuseEmbedded({ headers }: FastifyRequest, { takesAway = false }: Admission): void {
  const { 'sec-fetch-site': site, 'sec-fetch-mode': mode } = headers
  const isForeign = site === 'cross-site' || site === 'same-site'
  if (!isForeign) return
  const isLed = takesAway && mode === 'navigate'
  const isEmbedded = mode === 'no-cors' || frames.has(headers['sec-fetch-dest'])
  if (isLed || (isEmbedded && headers.origin === undefined)) {
    throw new GatewayError('origin-refused', { cause: `Sec-Fetch-Site: ${site}; Sec-Fetch-Mode: ${mode}` })
  }
}
