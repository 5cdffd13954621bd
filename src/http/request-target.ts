/**
 * The path of a request target in origin-form or absolute-form (RFC 9112 §3.2), without its query, as `normalizePath`.
 */
export function pathOf(target = '/'): string {
  const path = target.startsWith('/') ? target : target.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '')
  return normalizePath(path.split(/[?#]/, 1)[0] || '/')
}

/** An encoded letter, digit, `-`, `.`, `_` or `~`: it means the same as the character itself. */
const encodedUnreserved = /%(?:4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9ae]|3[0-9]|2[de]|5f)/gi

/** Decodes unreserved characters (RFC 3986 §6.2.2.2): `/%6dqtt` is `/mqtt`. All others, such as `%2F` and `%25`, stay as they are. */
export function normalizePath(path: string): string {
  if (!path.includes('%')) return path
  return path.replaceAll(encodedUnreserved, code => String.fromCharCode(Number.parseInt(code.slice(1), 16)))
}
