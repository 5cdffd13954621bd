import { errors, type JWTPayload, jwtVerify } from 'jose'
import { z } from 'zod'
import { GatewayError } from '../base/errors.js'
import { type Identity, isUserName, knownAs, type OwnRules } from '../base/identity.js'
import { describeBounds } from '../base/schema-issues.js'
import { algorithmsOf, type JwtConfig } from '../config/access.js'
import { firstProblem, ownFilters } from './own-rules.js'
import type { TokenKeys } from './token-keys.js'

/** In characters; a header with more would not get through either. */
const longestToken = 16_384

/** What a token may say of its own about topics: `mqtt: { publish: […], subscribe: […] }`. */
const mqttClaim = z.strictObject({ publish: ownFilters.default([]), subscribe: ownFilters.default([]) })

/** As many roles are looked at. */
const maxRoles = 1000

export interface TokensOptions {
  readonly config: JwtConfig
  readonly keys: Pick<TokenKeys, 'find'>
  /** The time in milliseconds since 1970. Default: the clock's. */
  readonly now?: () => number
}

/** Finds out who has a JSON web token (RFC 7519), as RFC 8725 advises. */
export class Tokens {
  readonly #config: JwtConfig
  readonly #keys: Pick<TokenKeys, 'find'>
  readonly #now: () => number

  constructor({ config, keys, now = Date.now }: TokensOptions) {
    this.#config = config
    this.#keys = keys
    this.#now = now
  }

  /**
   * Verifies a token and reads who it is for.
   *
   * @throws {Ending} `identity-refused`, with the reason for the peer; `identity-unavailable` when the issuer's keys are
   *   not to be had
   */
  async verify(token: string): Promise<Identity> {
    if (token.length > longestToken) throw refused(`the token has more than ${longestToken} characters`)
    return this.#identityOf(await this.#payloadOf(token))
  }

  async #payloadOf(token: string): Promise<JWTPayload> {
    const { issuer, audience, clockTolerance } = this.#config
    try {
      const { payload } = await jwtVerify(token, this.#keys.find, {
        // The list is ours, and never what the token says of itself (RFC 8725 §3.1).
        algorithms: [...algorithmsOf(this.#config)],
        ...(issuer === undefined ? {} : { issuer: [issuer].flat() }),
        ...(audience === undefined ? {} : { audience: [audience].flat() }),
        clockTolerance: clockTolerance / 1000,
        requiredClaims: ['exp'],
        currentDate: new Date(this.#now()),
      })
      return payload
    } catch (error) {
      throw endingOf(error)
    }
  }

  #identityOf(payload: JWTPayload): Identity {
    const { userClaim, rolesClaim, clockTolerance } = this.#config
    const user = claimAt(payload, userClaim)
    if (typeof user !== 'string' || !isUserName(user)) {
      throw refused(`the token's ${userClaim} must be a text of 1 to 255 bytes without control characters`)
    }
    return knownAs(user, 'token', {
      roles: rolesOf(claimAt(payload, rolesClaim), rolesClaim),
      claims: payload,
      rules: rulesOf(payload['mqtt']),
      // Whoever is let in by the tolerance is not to be put out again at once.
      expires: payload.exp === undefined ? undefined : payload.exp * 1000 + clockTolerance,
    })
  }
}

function refused(hint: string, cause?: unknown): GatewayError {
  return new GatewayError('identity-refused', { hint, cause })
}

/** The claim of this name; else, with dots in the name, what they lead to: `realm_access.roles`. */
function claimAt(payload: JWTPayload, name: string): unknown {
  if (Object.hasOwn(payload, name)) return payload[name]
  return name.split('.').reduce<unknown>((value, key) => {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
    return Reflect.get(value, key)
  }, payload)
}

function rolesOf(claim: unknown, name: string): readonly string[] {
  if (claim === undefined) return []
  if (typeof claim === 'string') return [claim]
  const fits = Array.isArray(claim) && claim.length <= maxRoles && claim.every(role => typeof role === 'string')
  if (!fits) throw refused(`the token's ${name} must be a text, or a list of at most ${maxRoles} texts`)
  return claim
}

/** Rules that cannot be read are not the same as none: without, a token might be for everything. */
function rulesOf(claim: unknown): OwnRules | undefined {
  if (claim === undefined) return undefined
  const result = mqttClaim.safeParse(claim, { error: describeBounds })
  if (!result.success) throw refused(`the token's mqtt is not right: ${firstProblem(result.error)}`)
  return result.data
}

/** Reasons by the code of the library's error; the tests bring about each of them. */
const reasons: Readonly<Record<string, string>> = {
  ERR_JWT_EXPIRED: 'the token has expired',
  ERR_JOSE_ALG_NOT_ALLOWED: 'the token is signed with an algorithm that is not accepted here',
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: 'the signature of the token is wrong',
  ERR_JWKS_NO_MATCHING_KEY: 'the token is signed with a key that the issuer does not have',
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: 'the token does not say which of the issuer’s keys it is signed with',
  ERR_JWS_INVALID: 'this is not a token',
  ERR_JWT_INVALID: 'this is not a token',
}

const claimReasons: Readonly<Record<string, string>> = {
  exp: 'the token does not say when it expires',
  nbf: 'the token is not valid yet',
  iss: 'the token is of another issuer',
  aud: 'the token is for another audience',
}

function endingOf(error: unknown): GatewayError {
  if (!(error instanceof errors.JOSEError)) return new GatewayError('identity-unavailable', { cause: error })
  if (error instanceof errors.JWTClaimValidationFailed) {
    return refused(claimReasons[error.claim] ?? `the token’s ${error.claim} is not right`, error)
  }
  const reason = reasons[error.code]
  if (reason !== undefined) return refused(reason, error)
  // What is left are the issuer's keys: not to be had, or not right.
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid || error.code === 'ERR_JOSE_GENERIC') {
    return new GatewayError('identity-unavailable', { cause: error })
  }
  return refused('the token cannot be read', error)
}
