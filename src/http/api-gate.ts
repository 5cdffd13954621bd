import type { FastifyInstance, FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { AuthenticationRequest, Authenticator } from '../access/authenticator.js'
import type { Client, ClientResolver } from '../access/client-address.js'
import { type ConnectionLimits, networkOf } from '../access/limits.js'
import type { OriginPolicy } from '../access/origins.js'
import type { RateLimits } from '../access/rate-limits.js'
import type { Permissions, TopicRules } from '../access/topic-rules.js'
import type { UserLimits } from '../access/user-limits.js'
import { GatewayError } from '../base/errors.js'
import { anonymous, type Identity } from '../base/identity.js'
import { accessEntryOf } from './access-log.js'
import { originRefusal } from './origin-refusal.js'
import { sendProblem } from './problem.js'
import { attemptOf, type CredentialOptions } from './request-identity.js'
import { pathOf } from './request-target.js'
import { addVary } from './responses.js'

/** An admitted client, its identity and permissions. */
export interface Caller {
  readonly client: Client
  readonly identity: Identity
  readonly permissions: Permissions
}

export interface ApiGateOptions {
  readonly allowsOrigin: OriginPolicy
  /** Origins whose requests may carry cookies and certificates; left out for none. */
  readonly allowsCredentials?: OriginPolicy | undefined
  readonly resolveClient: ClientResolver
  /** `undefined` without authentication. */
  readonly authenticator: Authenticator | undefined
  readonly rules: TopicRules
  readonly credentials: CredentialOptions
  /** Request rate of each network; left out for no limit. */
  readonly requests?: RateLimits | undefined
  /** Count open requests. */
  readonly connections: ConnectionLimits
  readonly users: UserLimits
}

/** How a route admits callers. */
export interface Admission {
  /**
   * Whether credentials are ignored, so that the response is nobody's in particular: for responses that any page can read.
   */
  readonly withoutCredentials?: boolean
  /** Whether a GET consumes something, such as a message that is delivered once: other sites may not navigate visitors there. */
  readonly takesAway?: boolean
  /** Whether only users are admitted: 401 for others. */
  readonly requiresUser?: boolean
  /** Whether a ticket is issued: only to users, and not for another ticket, which it would prolong. */
  readonly issuesTicket?: boolean
}

/** Methods of routes, besides OPTIONS. */
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

export interface OtherMethods {
  readonly url: string
  /** As in the options of a route. */
  readonly constraints?: RouteShorthandOptions['constraints']
  /** Those that it has; the others are refused. */
  readonly allowed: readonly string[]
  /** Request headers for pages of other origins. Default: `authorization`. */
  readonly headers?: string
  /** Sends the 405; default: a problem. */
  readonly refuse?: (reply: FastifyReply) => FastifyReply
}

function refuseMethod(reply: FastifyReply): FastifyReply {
  return sendProblem(reply, { status: 405 })
}

/** Response headers that scripts of other origins may read (Fetch §4.10). */
const exposedHeaders = 'retry-after, location, idempotency-replayed'

/** Admits requests to the API: origin, rate limit, authentication. */
export class ApiGate {
  readonly #options: ApiGateOptions

  constructor(options: ApiGateOptions) {
    this.#options = options
  }

  /** A gate with other credentials and origins. It shares all limits. */
  with(changes: Pick<ApiGateOptions, 'credentials' | 'allowsOrigin' | 'allowsCredentials'>): ApiGate {
    return new ApiGate({ ...this.#options, ...changes })
  }

  get allowsOrigin(): OriginPolicy {
    return this.#options.allowsOrigin
  }

  /** The client of a request, for the log. */
  clientOf({ raw }: FastifyRequest): Client {
    return this.#options.resolveClient(raw)
  }

  /**
   * Admits a request; without authentication it does not return a promise.
   *
   * @throws {GatewayError} `origin-refused`, `too-many-requests`, and as `readCredential` and `Authenticator.authenticate`
   */
  admit(request: FastifyRequest, reply: FastifyReply, admission: Admission = {}): Caller | Promise<Caller> {
    const client = this.#admitOrigin(request, reply)
    if (admission.withoutCredentials !== true) refuseEmbedded(request, admission)
    this.#count(client)
    const { authenticator } = this.#options
    if (authenticator === undefined) return this.#callerOf(client, anonymous)
    return this.#identify(authenticator, request, reply, client, admission)
  }

  /**
   * Admits repetitions of an admitted request: each is counted and authenticated anew.
   *
   * @returns the function that admits one; throws as `admit`
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
   * Counts a request over an open connection.
   *
   * @param requests that it counts as; beyond the limit, the network is in debt
   * @throws {GatewayError} `too-many-requests`
   */
  spend({ address }: Pick<Client, 'address'>, requests: number): void {
    const who = networkOf(address)
    requireNoWait(this.#options.requests?.wait(who))
    this.#options.requests?.spend(who, requests)
  }

  /**
   * Sets the CORS headers of a response (Fetch §3.2), also of a refusal, a 404 or 405.
   *
   * A page of another origin has to send `Authorization` itself; with `allowsCredentials` its browser sends cookies and certificates as well
   * (`Access-Control-Allow-Credentials`, Fetch §3.2.5).
   *
   * @returns whether requests of this origin are admitted
   */
  setOriginHeaders(request: FastifyRequest, reply: FastifyReply, client = this.clientOf(request)): boolean {
    const { allowsOrigin, allowsCredentials } = this.#options
    const { origin } = request.headers
    addVary(reply, 'origin')
    if (!allowsOrigin(origin, client.host, client.secure)) return false
    if (origin === undefined) return true
    reply.headers({ 'access-control-allow-origin': origin, 'access-control-expose-headers': exposedHeaders })
    if (allowsCredentials?.(origin, client.host, client.secure))
      reply.header('access-control-allow-credentials', 'true')
    return true
  }

  /** @throws {GatewayError} `origin-refused` */
  #admitOrigin(request: FastifyRequest, reply: FastifyReply): Client {
    const client = this.clientOf(request)
    if (this.setOriginHeaders(request, reply, client)) return client
    throw originRefusal(request.headers.origin, client.host, 'push.origins')
  }

  /** Answers preflights of `url`, which a browser may cache for ten minutes, and 405 to other methods. */
  registerOtherMethods(
    app: FastifyInstance,
    { url, constraints = {}, allowed, headers = 'authorization', refuse = refuseMethod }: OtherMethods,
  ): void {
    const preflight = {
      'access-control-allow-methods': allowed.join(', '),
      'access-control-allow-headers': headers,
      'access-control-max-age': '600',
    }
    app.options(url, { constraints }, async (request, reply) => {
      this.#admitOrigin(request, reply)
      return reply.code(204).headers(preflight).send()
    })
    const allow = [...allowed, 'OPTIONS'].join(', ')
    app.route({
      method: methods.filter(method => !allowed.includes(method) && !(method === 'HEAD' && allowed.includes('GET'))),
      url,
      constraints,
      handler: async (request, reply) => {
        this.setOriginHeaders(request, reply)
        return refuse(reply.header('allow', allow))
      },
    })
  }

  /**
   * Counts an open request: an event stream, a waiting poll.
   *
   * @returns releases it; idempotent
   * @throws {GatewayError} `too-many-connections`, `too-many-from-address`, `too-many-from-user`
   */
  hold({ client, identity }: Caller): () => void {
    const { connections, users } = this.#options
    const release = connections.hold(client.address)
    // One closure for both would take 250 bytes more for each of ten thousand streams without a user.
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

  /** Authenticates a new token of an open connection. @throws {GatewayError} as `Authenticator.authenticate` */
  async identifyToken(token: string, client: Pick<Client, 'address'>): Promise<Identity> {
    const { authenticator } = this.#options
    if (authenticator === undefined) return anonymous
    const credential = { kind: 'token', token } as const
    return authenticator.authenticate({ credential, transport: 'http', address: client.address, path: '/' })
  }

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
    if (!withoutCredentials) return attemptOf(request.raw, client, 'http', this.#options.credentials)
    const { url, headers } = request
    const nobodys = { credential: undefined, transport: 'http', address: client.address } as const
    return { ...nobodys, path: pathOf(url), origin: headers.origin }
  }

  async #identify(
    authenticator: Authenticator,
    request: FastifyRequest,
    reply: FastifyReply,
    client: Client,
    admission: Admission,
  ): Promise<Caller> {
    try {
      const { issuesTicket = false, requiresUser = false } = admission
      const attempt = this.#attemptOf(request, client, admission)
      if (issuesTicket && attempt.credential?.kind === 'ticket')
        throw new GatewayError('identity-refused', { hint: 'a ticket gets no ticket' })
      const identity = await authenticator.authenticate(attempt, { requireUser: issuesTicket || requiresUser })
      const entry = accessEntryOf(request.raw)
      if (entry) entry.user = identity.user
      return this.#callerOf(client, identity)
    } catch (error) {
      const challenge = authenticator.challengeFor(request.headers)
      if (challenge !== '' && GatewayError.from(error).httpStatus === 401) reply.header('www-authenticate', challenge)
      throw error
    }
  }
}

/** @throws {GatewayError} `too-many-requests`, with the time to wait */
function requireNoWait(milliseconds = 0): void {
  if (milliseconds > 0) throw new GatewayError('too-many-requests', { retryAfter: Math.ceil(milliseconds / 1000) })
}

/** `Sec-Fetch-Dest` of a page embedded in another (Fetch §2.2.5). */
const frames: ReadonlySet<unknown> = new Set(['iframe', 'frame', 'embed', 'object', 'fencedframe'])

/**
 * Refuses requests that another site's page makes by embedding an image, a script or a frame (Fetch Metadata §2), and, where a GET consumes
 * something, by a link, a form or `window.open`: browsers send no `Origin` with them, or an opaque one, but certificates and passwords. The page
 * could not read the response, and could use up the connections of its visitor, or a message that is delivered once.
 *
 * A page from a file uses `fetch` (`cors`), with `Origin: null`. Browsers send these headers to loopback and HTTPS hosts only.
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
