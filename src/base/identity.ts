/** The kind of credential of an identity. */
export type IdentitySource = 'none' | 'password' | 'token' | 'ticket' | 'certificate' | 'webhook'

/** Topic rules in a token or a webhook's response; filters with the syntax of an access rule (`%u`, `%c`). */
export interface IdentityRules {
  readonly publish: readonly string[]
  readonly subscribe: readonly string[]
}

/** Whether an identity was revoked. */
export interface Revocation {
  /** Names the credential that it is of: the same at all gateways with the same users, and another one after a change. */
  readonly credential: string
  readonly revoked: boolean
  /**
   * Calls `revoked` at the revocation; soon, if it was before.
   *
   * @returns a function that stops watching; idempotent
   */
  watch(revoked: () => void): () => void
}

/** The authenticated identity of a client. */
export interface Identity {
  /** A valid name (`isUserName`); `undefined` for an anonymous client. */
  readonly user: string | undefined
  readonly source: IdentitySource
  readonly roles: readonly string[]
  /** All claims of a token; empty for other sources. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Topic rules in addition to those of the configuration; `undefined` for none. */
  readonly rules: IdentityRules | undefined
  /** Its expiry, in milliseconds since 1970; `undefined` for none. */
  readonly expires: number | undefined
  /** `undefined` if it cannot be revoked. */
  readonly revocation: Revocation | undefined
}

/** The identity of a client without credential. */
export const anonymous: Identity = Object.freeze({
  user: undefined,
  source: 'none',
  roles: [],
  claims: {},
  rules: undefined,
  expires: undefined,
  revocation: undefined,
})

/** Creates the identity of a user. */
export function identityOf(user: string, source: IdentitySource, more: Partial<Omit<Identity, 'user'>> = {}): Identity {
  return { ...anonymous, ...more, user, source }
}

/** In bytes, as in Apache's htpasswd. */
const maxNameBytes = 255

/**
 * Whether `text` is a valid user name: not empty, at most 255 bytes, and without characters that end a line in a log, a header or a
 * file.
 */
export function isUserName(text: string): boolean {
  return text !== '' && Buffer.byteLength(text) <= maxNameBytes && !/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(text)
}
