import { compileAddresses } from './addresses.js'
import { parseHost } from './origins.js'

/** The conditions under which a tunnel is there, as the configuration says them. */
export interface TunnelConditions {
  /** `a.example`, `*.a.example`, `/regular expression/`. */
  readonly hosts?: readonly string[] | undefined
  /** Ports, or `unix:/path` for a Unix socket. */
  readonly ports?: readonly (number | string)[] | undefined
  /** Addresses or CIDR ranges. */
  readonly allow?: readonly string[] | undefined
}

/** Makes the functions that decide whether a tunnel is at a host and port, and open to an address; left out where nothing limits it. */
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

/** A request without a host is at none. */
function compileHosts(patterns: readonly string[]): (host: string | undefined) => boolean {
  const tests = patterns.map((pattern): ((name: string) => boolean) => {
    const source = /^\/(.+)\/$/s.exec(pattern)?.[1]
    if (source !== undefined) {
      const expression = new RegExp(source, 'u')
      return name => expression.test(name)
    }
    const lower = pattern.toLowerCase()
    return lower.startsWith('*.') ? name => name.endsWith(lower.slice(1)) : name => name === lower
  })
  return host => {
    const name = host === undefined ? undefined : parseHost(host)?.host
    return name !== undefined && tests.some(matches => matches(name))
  }
}
