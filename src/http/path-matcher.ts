import { pathVariants } from '../base/path-variants.js'
import type { PathConditions } from '../config/path-conditions.js'
import { normalizePath } from './request-target.js'

/**
 * Matches the path of a request with the one condition that is given; without any, every path matches. A prefix, suffix or pattern has to match
 * every spelling of the path: `//a` and `/b/../a` are `/a`, too.
 */
export function pathMatcher({ path, pathPrefix, pathSuffix, pathPattern }: PathConditions): (path: string) => boolean {
  // The paths of requests are normalized, too.
  const [prefix, suffix, whole] = [pathPrefix, pathSuffix, path].map(each => each && normalizePath(each))
  if (prefix !== undefined) {
    const prefixes = pathVariants(prefix)
    return candidate => pathVariants(candidate).every(spelling => prefixes.some(own => spelling.startsWith(own)))
  }
  if (suffix !== undefined) {
    const suffixes = pathVariants(suffix)
    return candidate => pathVariants(candidate).every(spelling => suffixes.some(own => spelling.endsWith(own)))
  }
  if (pathPattern !== undefined) {
    const pattern = new RegExp(pathPattern, 'u')
    // A pattern with an escape applies to the path as sent.
    if (pathPattern.includes('%')) return candidate => pattern.test(candidate)
    return candidate => pathVariants(candidate).every(spelling => pattern.test(spelling))
  }
  if (whole === undefined) return () => true
  const trimmed = whole.replace(/\/$/, '')
  return candidate => candidate.replace(/\/$/, '') === trimmed
}
