/** How it became known who somebody is. */
export type IdentitySource = 'none' | 'password' | 'token' | 'ticket' | 'certificate' | 'webhook'

/** Topic filters that somebody brings along, in the form of those of a rule (`%u`, `%c`). */
export interface IdentityRules {
  readonly publish: readonly string[]
  readonly subscribe: readonly string[]
}

/** What takes back who somebody is, whenever that is. */
export interface Revocation {
  /** Whether it has. */
  readonly revoked: boolean
  /**
   * Calls `revoked` when it does; soon, where it has already.
   *
   * @returns what takes the call back; calling it again does nothing
   */
  watch(revoked: () => void): () => void
}

/** Who somebody is, as far as it was proven. */
export interface Identity {
  /** A name that passed `isUserName`; `undefined` for somebody who is not known. */
  readonly user: string | undefined
  readonly source: IdentitySource
  readonly roles: readonly string[]
  /** What a token says, all of it; empty for all other sources. */
  readonly claims: Readonly<Record<string, unknown>>
  /** What they may do besides what the configuration's rules give; `undefined` where they bring none. */
  readonly rules: IdentityRules | undefined
  /** Until when it holds, in milliseconds since 1970; `undefined` for as long as the connection lasts. */
  readonly expires: number | undefined
  /** What may end it before; `undefined` where nothing does. */
  readonly revocation: Revocation | undefined
}

/** Somebody who presented nothing. */
export const anonymous: Identity = Object.freeze({
  user: undefined,
  source: 'none',
  roles: [],
  claims: {},
  rules: undefined,
  expires: undefined,
  revocation: undefined,
})

/** Makes the identity of a user. */
export function identityOf(user: string, source: IdentitySource, more: Partial<Omit<Identity, 'user'>> = {}): Identity {
  return { ...anonymous, ...more, user, source }
}

/** In bytes; what Apache's htpasswd takes. */
const longestName = 255

/**
 * Whether `text` may be a user name, wherever it comes from: not empty, at most 255 bytes, and nothing in it that could
 * begin a line of its own in a log, a header or a file.
 */
export function isUserName(text: string): boolean {
  return text !== '' && Buffer.byteLength(text) <= longestName && !/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(text)
}
