import type { Client } from '../access/client-address.js'
import { compileTunnelConditions } from '../access/tunnel-conditions.js'
import type { HeaderRule } from '../config/web.js'
import { pathMatcher } from './path-matcher.js'

type Headers = Readonly<Record<string, string>>

/** A request, as far as rules look at it. */
interface RuledRequest extends Pick<Client, 'host' | 'secure'> {
  /** From `pathOf`. */
  readonly path: string
}

/**
 * Headers of files alone: on an error or an API response they would have it cached for long, or read by other sites (`Access-Control-*`, which
 * `push.origins` decides there).
 */
const fileHeaders = /^(?:access-control-.*|cache-control|content-disposition|content-language|expires|pragma)$/

interface CompiledRule {
  readonly matches: (request: RuledRequest) => boolean
  readonly all: Headers
  readonly files: Headers
}

/** The configured response headers (`headers:`). */
export class HeaderRules {
  readonly #rules: readonly CompiledRule[]

  constructor(rules: readonly HeaderRule[]) {
    this.#rules = rules.map(compile)
  }

  /** The headers of every response, also of errors; what the program sets itself takes precedence. */
  forAll(request: RuledRequest): Headers | undefined {
    return this.#merged(request, 'all')
  }

  /** Further headers of a file (200, 206, 304), which take precedence over the program's. */
  forFile(request: RuledRequest): Headers | undefined {
    return this.#merged(request, 'files')
  }

  #merged(request: RuledRequest, kind: 'all' | 'files'): Headers | undefined {
    if (this.#rules.length === 0) return undefined
    const merged: Record<string, string> = {}
    for (const rule of this.#rules) if (rule.matches(request)) Object.assign(merged, rule[kind])
    // RFC 6797 §7.2: not over an unencrypted connection.
    if (!request.secure) delete merged['strict-transport-security']
    return merged
  }
}

function compile({ hosts, set, ...paths }: HeaderRule): CompiledRule {
  const matchesPath = pathMatcher(paths)
  const { isAt } = compileTunnelConditions({ hosts })
  const entries = Object.entries(set).map(([name, value]) => [name.toLowerCase(), value] as const)
  const [files, all] = [true, false].map(isFile =>
    Object.fromEntries(entries.filter(([name]) => fileHeaders.test(name) === isFile)),
  )
  return {
    matches: ({ path, host }) => matchesPath(path) && isAt?.(host, undefined) !== false,
    all: all ?? {},
    files: files ?? {},
  }
}
