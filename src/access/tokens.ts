import { errors, type JWTPayload, jwtVerify } from 'jose'
import { z } from 'zod'
import { GatewayError } from '../base/errors.js'
import { type Identity, type IdentityRules, identityOf, isUserName } from '../base/identity.js'
import { describeBounds } from '../base/schema-issues.js'
import { algorithmsOf, type JwtConfig } from '../config/access.js'
import { firstProblem, identityFilters } from './identity-rules.js'
import type { TokenKeys } from './token-keys.js'

/** In characters; a longer header would be refused, too. */
const maxTokenLength = 16_384

/** The claim with a token's own topic rules: `mqtt: { publish: […], subscribe: […] }`. */
const mqttClaim = z.strictObject({ publish: identityFilters.default([]), subscribe: identityFilters.default([]) })

const maxRoles = 1000

export interface TokensOptions {
  readonly config: JwtConfig
  readonly keys: Pick<TokenKeys, 'find'>
  /** Milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number
}

/** Verifies JSON web tokens (RFC 7519) by the best practices of RFC 8725. */
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
   * Verifies a token, and reads its identity.
   *
   * @throws {GatewayError} `identity-refused`, with the reason; `identity-unavailable` if the issuer's keys cannot be
   *   fetched
   */
  async verify(token: string): Promise<Identity> {
    if (token.length > maxTokenLength) throw refused(`the token has more than ${maxTokenLength} characters`)
    return this.#identityOf(await this.#payloadOf(token))
  }

  async #payloadOf(token: string): Promise<JWTPayload> {
    const { issuer, audience, clockTolerance } = this.#config
    try {
      const { payload } = await jwtVerify(token, this.#keys.find, {
        // Never the token's own `alg` (RFC 8725 §3.1).
        algorithms: [...algorithmsOf(this.#config)],
        ...(issuer === undefined ? {} : { issuer: [issuer].flat() }),
        ...(audience === undefined ? {} : { audience: [audience].flat() }),
        clockTolerance: clockTolerance / 1000,
        requiredClaims: ['exp'],
        currentDate: new Date(this.#now()),
      })
      return payload
    } catch (error) {
      throw toGatewayError(error)
    }
  }

  #identityOf(payload: JWTPayload): Identity {
    const { userClaim, rolesClaim, clockTolerance } = this.#config
    const user = claimAt(payload, userClaim)
    if (typeof user !== 'string' || !isUserName(user)) {
      throw refused(`the token's ${userClaim} must be a text of 1 to 255 bytes without control characters`)
    }
    return identityOf(user, 'token', {
      roles: rolesOf(claimAt(payload, rolesClaim), rolesClaim),
      claims: payload,
      rules: rulesOf(payload['mqtt']),
      // The tolerance must not admit a client whose identity expires at once.
      expires: payload.exp === undefined ? undefined : payload.exp * 1000 + clockTolerance,
    })
  }
}

function refused(hint: string, cause?: unknown): GatewayError {
  return new GatewayError('identity-refused', { hint, cause })
}

/** The claim with this name, or, with dots, the path of a nested one: `realm_access.roles`. */
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

/** Invalid rules are refused and not ignored: without rules, a token may give access to everything. */
function rulesOf(claim: unknown): IdentityRules | undefined {
  if (claim === undefined) return undefined
  const result = mqttClaim.safeParse(claim, { error: describeBounds })
  if (!result.success) throw refused(`the token's mqtt is not right: ${firstProblem(result.error)}`)
  return result.data
}

/** Reasons by the error codes of `jose`; tests show each. */
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

function toGatewayError(error: unknown): GatewayError {
  if (!(error instanceof errors.JOSEError)) return new GatewayError('identity-unavailable', { cause: error })
  if (error instanceof errors.JWTClaimValidationFailed) {
    return refused(claimReasons[error.claim] ?? `the token’s ${error.claim} is not right`, error)
  }
  const reason = reasons[error.code]
  if (reason !== undefined) return refused(reason, error)
  // The issuer's keys cannot be fetched, or are invalid.
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid || error.code === 'ERR_JOSE_GENERIC') {
    return new GatewayError('identity-unavailable', { cause: error })
  }
  return refused('the token cannot be read', error)
}
