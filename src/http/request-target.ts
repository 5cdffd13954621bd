/** The path of a request target in origin-form or absolute-form (RFC 9112 §3.2), without its query. */
export function pathOf(target = '/'): string {
  const path = target.startsWith('/') ? target : target.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '')
  return path.split(/[?#]/, 1)[0] || '/'
}
