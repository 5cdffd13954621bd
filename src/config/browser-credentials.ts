import type { AccessConfig } from './access.js'

/** The credentials that browsers add by themselves to what any page makes them send, as far as `access` takes them. */
export function addedByBrowsers(access: AccessConfig | undefined): ('cookies' | 'certificates')[] {
  const takesCookies =
    access?.jwt?.cookie !== undefined || access?.webhook?.headers.some(name => name.toLowerCase() === 'cookie')
  return [
    ...(takesCookies ? (['cookies'] as const) : []),
    ...(access?.clientCertificates === undefined ? [] : (['certificates'] as const)),
  ]
}

/** An origin that nobody lists, and that of pages without one. */
const [strange, opaque] = ['https://not-listed.invalid', 'null']

/** Whether an entry of a list of origins names sites, and not the pages of all of them. */
export function isOfNamedSites(entry: string): boolean {
  if (entry === '*' || entry === opaque) return false
  const [, pattern] = /^\/(.+)\/$/s.exec(entry) ?? []
  return pattern === undefined || ![strange, opaque].some(origin => new RegExp(pattern, 'u').test(origin))
}
