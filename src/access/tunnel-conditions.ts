import { expressionOf } from '../config/forms.js'
import { compileAddresses } from './addresses.js'
import { parseHost } from './origins.js'

/** The conditions of a tunnel in the configuration. */
export interface TunnelConditions {
  /** `a.example`, `*.a.example`, `/regular expression/`. */
  readonly hosts?: readonly string[] | undefined
  /** Ports, or `unix:/path` for a Unix socket. */
  readonly ports?: readonly (number | string)[] | undefined
  /** Addresses or CIDR ranges. */
  readonly allow?: readonly string[] | undefined
}

/** Compiles the conditions of a tunnel: whether it is served at a host and port, and open to an address; omitted without condition. */
export function compileTunnelConditions({ hosts, ports, allow }: TunnelConditions): {
  isAt?(host: string | undefined, port: number | undefined): boolean
  allowsAddress?(address: string): boolean
} {
  const matchesHost = hosts && compileHosts(hosts)
  const hasUnixSocket = ports?.some(port => typeof port === 'string')
  const hasPort =
    ports && ((port: number | undefined) => (port === undefined ? hasUnixSocket === true : ports.includes(port)))
  return {
    ...((matchesHost || hasPort) && {
      isAt: (host, port) => matchesHost?.(host) !== false && hasPort?.(port) !== false,
    }),
    ...(allow && { allowsAddress: compileAddresses(allow) }),
  }
}

/**
 * A request without a host matches none. A regular expression with a colon is matched with the host and its port, unless that is 80 or
 * 443.
 */
function compileHosts(patterns: readonly string[]): (host: string | undefined) => boolean {
  const tests = patterns.map((pattern): ((name: string, withPort: string) => boolean) => {
    const source = expressionOf(pattern)
    if (source !== undefined) {
      const expression = new RegExp(source, 'u')
      // Not the colon of a group, nor those of an IPv6 address.
      const matchesPort = source.replaceAll(/\(\?:|\\\[.*?\\\]/g, '').includes(':')
      return (name, withPort) => expression.test(matchesPort ? withPort : name)
    }
    const lower = pattern.toLowerCase()
    return lower.startsWith('*.') ? name => name.endsWith(lower.slice(1)) : name => name === lower
  })
  return host => {
    const parsed = host === undefined ? undefined : parseHost(host)
    if (parsed === undefined) return false
    // `a.example.` is the same host (RFC 3986 §3.2.2).
    const name = parsed.host.replace(/\.$/, '')
    const withPort = ['80', '443'].includes(parsed.port) ? name : `${name}:${parsed.port}`
    return tests.some(matches => matches(name, withPort))
  }
}
